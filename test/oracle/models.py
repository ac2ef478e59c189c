"""Model fixtures: logits, greedy tokens and sampled tokens of mlx-lm for tiny models with weights by formula.

    python models.py [NAME ...]       write the fixtures
    python models.py --search NAME    find a salt whose greedy choices are far from a tie

For each run the smallest gap between the best and the second best logit is printed. An argmax can only differ
between two machines where that gap is about as small as their rounding.
"""

import os
import sys

os.environ["MLX_DISABLE_COMPILE"] = "1"  # compiled equals eager bit for bit on the CPU, and needs g++

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten
from mlx_lm.generate import generate_step
from mlx_lm.models import afm7, bailing_hybrid, bailing_moe_linear, jamba, longcat_flash, mamba, recurrent_gemma, rwkv7
from mlx_lm.models.cache import make_prompt_cache
from mlx_lm.sample_utils import make_sampler
from mlx_lm.utils import _get_classes

import beyond
import encode
from architectures import CONFIGS, SALTS, checkpoint
from corrected import correct
from unfused import made_for, unfuse_muse_spark
from weights import weight

PROMPT = [7, 201, 42, 99, 13, 250, 128, 64]
BATCH = [[7, 201, 42, 99], [13, 250, 128, 64]]
STEPS = [PROMPT[:5], PROMPT[5:6], PROMPT[6:7], PROMPT[7:]]
COLUMNS = 8  # every eighth logit is kept of each position, and all of them of the prompt's last
GREEDY, SAMPLED, SEED = 64, 32, 42
ENOUGH = 0.0625  # a bfloat16 gap at which a search may stop: two units in the last place of a logit between 4 and 8
VARIED = 12  # distinct tokens among the greedy ones
QUANTIZATION = {"group_size": 32, "bits": 4}
SAMPLERS = {
    "top_p": {"temp": 0.8, "top_p": 0.9},
    "top_k": {"temp": 0.8, "top_k": 20},
    "min_p": {"temp": 0.8, "min_p": 0.05},
    "xtc": {"temp": 0.8, "xtc_probability": 0.5, "xtc_threshold": 0.05, "xtc_special_tokens": [10]},
    "all": {"temp": 0.8, "top_p": 0.95, "min_p": 0.02, "top_k": 40, "xtc_probability": 0.3, "xtc_threshold": 0.05},
}


def widen_gather_mm():
    """Lets bfloat16 mixtures of experts run: MLX's gather_mm on the CPU takes float32 only, so the oracle multiplies the
    bfloat16 values in float32 and rounds the result."""
    gather_mm = mx.gather_mm

    def widened(a, b, *args, **kwargs):
        if a.dtype == mx.float32:
            return gather_mm(a, b, *args, **kwargs)
        return gather_mm(a.astype(mx.float32), b.astype(mx.float32), *args, **kwargs).astype(a.dtype)

    mx.gather_mm = widened


def widen_scans():
    """Keeps what enters the states of Mamba, RWKV, Griffin and Bailing's lightning attention in float32, and the states of all
    but the last: mlx-lm rounds them to bfloat16 with every token; we don't."""

    def ssm_step(self, x, A, state=None):
        rank, size = self.time_step_rank, self.ssm_state_size
        delta, B, C = mx.split(self.x_proj(x), [rank, rank + size], axis=-1)
        if hasattr(self, "dt_layernorm"):
            delta, B, C = self.dt_layernorm(delta), self.b_layernorm(B), self.c_layernorm(C)
        elif self.use_bcdt_rms:
            delta, B, C = (mx.fast.rms_norm(part, weight=None, eps=self.args.mixer_rms_eps) for part in (delta, B, C))
        steps, inputs, B, C = (part.astype(mx.float32) for part in (nn.softplus(self.dt_proj(delta)), x, B, C))
        decays = mx.exp(-steps[..., None] * mx.exp(self.A_log.astype(mx.float32)))
        entering = (steps * inputs)[..., None] * B[..., None, :]
        if x.ndim == 2:
            states = last = entering if state is None else entering + state * decays
        else:
            last, states = state, []
            for t in range(x.shape[1]):
                last = entering[:, t] if last is None else entering[:, t] + last * decays[:, t]
                states.append(last)
            states = mx.stack(states, axis=1)
        y = (states @ C[..., None]).squeeze(-1) + self.D.astype(mx.float32) * inputs
        return y.astype(x.dtype), last

    rule, low_rank, made = rwkv7.Rwkv7TimeMixing._wkv7, rwkv7.LoRA.__call__, {}

    def lora(self, x):
        made[id(self)] = low_rank(self, x)
        return made[id(self)]

    def wkv7(self, r, w, k, v, a, b, state):
        decay = mx.exp(-0.606531 * mx.sigmoid(made[id(self.w_lora)]).astype(mx.float32)).reshape(w.shape)
        wide = [x if x is None else x.astype(mx.float32) for x in (r, k, v, a, b, state)]
        y, state = rule(self, wide[0], decay, *wide[1:])
        return y.astype(r.dtype), state

    lightning = bailing_hybrid.recurrent_gla

    def recurrent_gla(q, k, v, *others, **options):
        y, state = lightning(*(x.astype(mx.float32) for x in (q, k, v)), *others, **options)
        return y.astype(q.dtype), state

    def rg_lru(self, x, cache=None):
        def gate(w, b):
            heads = x.reshape(*x.shape[:2], self.num_heads, self.head_dim).swapaxes(1, 2)
            return mx.sigmoid(((heads @ w).swapaxes(1, 2) + b).flatten(2, 3).astype(mx.float32))

        entering = gate(self.input_gate_weight, self.input_gate_bias) * x
        rates = -8.0 * nn.softplus(self.recurrent_param.astype(mx.float32))
        logs = gate(self.recurrent_gate_weight, self.recurrent_gate_bias) * rates
        share = mx.sqrt(-mx.expm1(2 * logs))
        if cache is None:
            share[:, 0, :] = 1.0
        state, states = cache, []
        for t in range(x.shape[1]):
            state = (entering * share)[:, t] + (0 if state is None else mx.exp(logs[:, t]) * state)
            states.append(state)
        return mx.stack(states, axis=1).astype(x.dtype), state

    recurrent_gemma.RGLRU.__call__ = rg_lru
    bailing_hybrid.recurrent_gla = bailing_moe_linear.recurrent_gla = recurrent_gla
    jamba.JambaMambaMixer.ssm_step = mamba.MambaBlock.ssm_step = ssm_step
    rwkv7.Rwkv7TimeMixing._wkv7, rwkv7.LoRA.__call__ = wkv7, lora


def train_longcat():
    """Makes LongCat what it was trained as: transformers chooses experts in float32, where mlx-lm's softmax is in the model's
    dtype, and its latent norms have an epsilon of 1e-6, where mlx-lm's have 1e-5."""
    softmax, route, make = mx.softmax, longcat_flash.LongcatFlashTopkRouter.__call__, longcat_flash.LongcatFlashMLA.__init__

    def routed(self, x):
        mx.softmax = lambda logits, axis: softmax(logits.astype(mx.float32), axis=axis)
        try:
            return route(self, x)
        finally:
            mx.softmax = softmax

    def made(self, args):
        make(self, args)
        self.q_a_layernorm.eps = self.kv_a_layernorm.eps = 1e-6

    longcat_flash.LongcatFlashTopkRouter.__call__, longcat_flash.LongcatFlashMLA.__init__ = routed, made


def pass_modes():
    """Lets AFM 7 be quantized: its joint layer takes no `mode`, which mlx's quantize gives to all."""
    packed = afm7.FusedLinear.to_quantized
    afm7.FusedLinear.to_quantized = lambda self, group_size, bits, mode=None: packed(self, group_size, bits)


def fits(path, layer):
    """Whether a layer's rows are whole groups. mlx-lm's convert leaves the others too, and what scores Kimi K3's states."""
    return not path.endswith("res_proj") and hasattr(layer, "to_quantized") and layer.weight.shape[-1] % QUANTIZATION["group_size"] == 0


def build(name, salt, dtype=mx.float32, quantized=False):
    """The model and the shapes of its checkpoint."""
    made_for(dtype)
    Model, Args = beyond.classes(CONFIGS[name]) or _get_classes(CONFIGS[name])
    model = Model(Args.from_dict(CONFIGS[name]))
    shapes = checkpoint(name, tree_flatten(model.parameters()))
    weights = {k: mx.array(weight(k, s, salt)) for k, s in shapes.items()}
    model.load_weights(list(model.sanitize(weights).items() if hasattr(model, "sanitize") else weights.items()))
    model.set_dtype(dtype)
    if quantized:
        nn.quantize(model, **QUANTIZATION, class_predicate=fits)
    model.eval()
    mx.eval(model.parameters())
    return model, shapes


# Without a cache mlx-lm lets the layers that share keys and values compute some of their own, as they were not trained to.
ALWAYS_CACHED = {"gemma3n"}


def logits(model, inputs, cache=None):
    if model.model_type in ALWAYS_CACHED and cache is None:
        cache = make_prompt_cache(model)
    out = model(mx.array(inputs), cache=cache)
    return encode.float32(out[..., ::COLUMNS])


def greedy(model, count=GREEDY):
    """Tokens, and the gaps between the two best logits, in units of bfloat16's last place for a bfloat16 model."""
    return greedy_of(model, PROMPT, count)


def greedy_of(model, prompt, count):
    tokens, gaps = [], []
    for token, logprobs in generate_step(mx.array(prompt), model, max_tokens=count):
        best, second = mx.topk(logprobs.astype(mx.float32), 2).tolist()[::-1]
        tokens.append(token)
        gaps.append(best - second)
    return tokens, min(gaps)


class Shaken:
    """The model with noise of a given size on its logits: what another BLAS may do, many times over."""

    def __init__(self, model, size):
        self.model, self.size, self.layers = model, size, model.layers
        self.key = mx.random.key(1)

    def __call__(self, *args, **kwargs):
        out = self.model(*args, **kwargs)
        self.key, key = mx.random.split(self.key)
        return out + self.size * mx.random.uniform(-1, 1, out.shape, key=key)


def sample(model, options, shake=0.0):
    cache = make_prompt_cache(model)
    runner = Shaken(model, shake) if shake else model
    mx.random.seed(SEED)
    steps = generate_step(
        mx.array(PROMPT), runner, max_tokens=SAMPLED, sampler=make_sampler(**options), prompt_cache=cache
    )
    return [token for token, _ in steps]


def fixture(name):
    salt = SALTS.get(name, 0)
    model, shapes = build(name, salt)
    data = {"config": CONFIGS[name], "salt": salt, "weights": shapes, "prompt": PROMPT, "columns": COLUMNS}
    last = model(mx.array([PROMPT]), cache=make_prompt_cache(model) if model.model_type in ALWAYS_CACHED else None)[:, -1]
    data["prefill"] = {"logits": logits(model, [PROMPT]), "last": encode.float32(last)}
    cache = make_prompt_cache(model)
    data["steps"] = [{"inputs": s, "logits": logits(model, [s], cache)} for s in STEPS]
    data["batch"] = {"inputs": BATCH, "logits": logits(model, BATCH)}

    tokens, gap = greedy(model)
    report = [f"f32 {gap:.1e} ({len(set(tokens))} distinct)"]
    data["float32"] = {"greedy": tokens}
    for kind, dtype, quantized in (("bfloat16", mx.bfloat16, False), ("affine4", mx.float32, True)):
        other, _ = build(name, salt, dtype, quantized)
        tokens, gap = greedy(other)
        data[kind] = {"logits": logits(other, [PROMPT]), "greedy": tokens}
        report.append(f"{kind} {gap:.1e} ({len(set(tokens))})")

    data["seed"], data["sampled"] = SEED, {}
    for kind, options in SAMPLERS.items():
        tokens = sample(model, options)
        if tokens != sample(model, options, shake=2e-5):
            report.append(f"{kind} UNSTABLE")
        data["sampled"][kind] = {"options": options, "tokens": tokens}
    encode.write(f"models/{name}.json", data)
    print("  smallest gaps:", ", ".join(report))


def quality(name, salt):
    """Larger is better: the smallest gap where it matters, 0 if the text is monotonous or a sampler is unstable."""
    model, _ = build(name, salt)
    tokens, gap = greedy(model)
    if gap < 2e-3 or len(set(tokens)) < VARIED:
        return 0, ()
    quantized, _ = build(name, salt, quantized=True)
    tokens, gap4 = greedy(quantized)
    if gap4 < 2e-3 or len(set(tokens)) < VARIED:
        return 0, ()
    rounded, _ = build(name, salt, mx.bfloat16)
    tokens, gap16 = greedy(rounded)
    if gap16 == 0 or len(set(tokens)) < VARIED:
        return 0, ()
    if any(sample(model, options) != sample(model, options, 2e-5) for options in SAMPLERS.values()):
        return 0, ()
    return gap16, (gap, gap4)


def search(name, tries):
    best = (0, (), None)
    for salt in range(tries):
        score, gaps = quality(name, salt)
        if score > best[0]:
            best = (score, gaps, salt)
            print(name, "salt", salt, "bf16 gap", score, "f32, 4-bit", gaps, flush=True)
        if score >= ENOUGH:
            return


if __name__ == "__main__":
    widen_gather_mm()
    widen_scans()
    train_longcat()
    pass_modes()
    unfuse_muse_spark()
    correct()
    names = [a for a in sys.argv[1:] if not a.startswith("-")] or list(CONFIGS)
    for name in names:
        search(name, 60) if "--search" in sys.argv else fixture(name)
