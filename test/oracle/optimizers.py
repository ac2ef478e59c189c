"""Optimizers and schedules, a few steps each, by mlx.optimizers."""

import math

import mlx.core as mx
import mlx.optimizers as optim

import encode

GRADIENTS = [[0.1, -0.2, 0.3], [0.5, 0.1, -0.4], [-0.3, 0.2, 0.1], [0.05, -0.6, 0.2]]


def trajectory(optimizer):
    parameters = {"w": mx.array([1.0, -2.0, 0.5])}
    values = []
    for gradient in GRADIENTS:
        parameters = optimizer.apply_gradients({"w": mx.array(gradient)}, parameters)
        mx.eval(parameters, optimizer.state)
        values.append(parameters["w"].tolist())
    return values


RULES = {
    "adam": lambda: optim.Adam(1e-2),
    "adamw": lambda: optim.AdamW(1e-2, weight_decay=0.1),
    "adamw, corrected": lambda: optim.AdamW(1e-2, betas=[0.8, 0.95], bias_correction=True),
    "sgd": lambda: optim.SGD(1e-1, weight_decay=0.1),
    "sgd, momentum": lambda: optim.SGD(1e-1, momentum=0.9, dampening=0.2),
    "sgd, nesterov": lambda: optim.SGD(1e-1, momentum=0.9, nesterov=True),
    "muon": lambda: optim.Muon(1e-2),
    "muon, plain": lambda: optim.Muon(1e-2, momentum=0.8, weight_decay=0, nesterov=False, ns_steps=3),
    "adafactor": lambda: optim.Adafactor(1e-2),
    "adafactor, warm-up": lambda: optim.Adafactor(warmup_init=True, beta_1=0.9, weight_decay=0.1),
    "adafactor, own rate": lambda: optim.Adafactor(1e-2, relative_step=False, scale_parameter=False, clip_threshold=0.5),
}
STEPS = 20


def wave(shape, phase):
    count = 1
    for size in shape:
        count *= size
    return mx.array([math.sin(1.7 * i + phase) for i in range(count)]).reshape(shape)


def updates(make, dtype):
    """A tall matrix, a wide one and a vector after each step."""
    shapes = {"tall": (4, 3), "wide": (2, 5), "vector": (3,)}
    optimizer = make()
    parameters = {name: wave(shape, 0.3).astype(dtype) for name, shape in shapes.items()}
    steps = []
    for step in range(STEPS):
        gradients = {name: wave(shape, step + 1).astype(dtype) for name, shape in shapes.items()}
        parameters = optimizer.apply_gradients(gradients, parameters)
        mx.eval(parameters, optimizer.state)
        steps.append({name: encode.numbers(x.astype(mx.float32).reshape(-1).tolist()) for name, x in parameters.items()})
    return steps


def schedule(fn, steps):
    return [float(fn(mx.array(step))) for step in range(steps)]


def main():
    joined = optim.join_schedules([optim.linear_schedule(0, 1e-2, 3), optim.cosine_decay(1e-2, 5, 1e-3)], [3])
    clipped, norm = optim.clip_grad_norm({"a": mx.array([3.0, 4.0]), "b": mx.array([12.0])}, 6.5)
    encode.write(
        "optimizers.json",
        {
            "gradients": GRADIENTS,
            "adamw": trajectory(optim.AdamW(1e-2)),
            "adamw_corrected": trajectory(
                optim.AdamW(5e-3, betas=[0.8, 0.95], eps=1e-6, weight_decay=0.1, bias_correction=True)
            ),
            "adamw_scheduled": trajectory(optim.AdamW(joined)),
            "rules": {
                name: {"float32": updates(make, mx.float32), "bfloat16": updates(make, mx.bfloat16)}
                for name, make in RULES.items()
            },
            "linear": schedule(optim.linear_schedule(0, 1e-2, 4), 7),
            "exponential": schedule(optim.exponential_decay(1e-1, 0.9), 5),
            "step": schedule(optim.step_decay(1e-1, 0.5, 2), 5),
            "cosine": schedule(optim.cosine_decay(1e-2, 5, 1e-3), 8),
            "joined": schedule(joined, 10),
            "clipped": [clipped["a"].tolist(), clipped["b"].tolist(), norm.item()],
        },
    )


if __name__ == "__main__":
    main()
