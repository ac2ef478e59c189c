"""Optimizers and schedules, a few steps each, by mlx.optimizers."""

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
            "linear": schedule(optim.linear_schedule(0, 1e-2, 4), 7),
            "cosine": schedule(optim.cosine_decay(1e-2, 5, 1e-3), 8),
            "joined": schedule(joined, 10),
            "clipped": [clipped["a"].tolist(), clipped["b"].tolist(), norm.item()],
        },
    )


if __name__ == "__main__":
    main()
