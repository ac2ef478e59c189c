"""The text models that mlx-vlm has and mlx-lm lacks, as mlx-lm's tools take models.

mlx-vlm's files of models need no more than Pillow: `pip install --no-deps mlx-vlm==0.7.10 pillow`.
"""

import importlib
import importlib.util
import sys
import types

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten

# Where the language model is, and its arguments' class.
BEYOND = {
    "cohere2_moe": "ModelConfig", "deepseek_v4": "ModelConfig", "glm5_next": "TextConfig", "hy_v4": "ModelConfig",
    "k2_horizon": "ModelConfig", "mimo_v2": "TextConfig", "qwen4_exp": "TextConfig", "step3p7": "TextConfig",
}


def bare_package():
    """mlx_vlm's folders without what its own start imports: servers and readers of pictures and sound."""
    if "mlx_vlm" in sys.modules:
        return
    [folder] = importlib.util.find_spec("mlx_vlm").submodule_search_locations
    for name, path in (("mlx_vlm", folder), ("mlx_vlm.models", f"{folder}/models")):
        package = types.ModuleType(name)
        package.__path__ = [path]
        sys.modules[name] = package


class Tail(nn.Module):
    """Turns the last features of a head, as halves."""

    def __init__(self, rope):
        super().__init__()
        self.rope = rope

    def __call__(self, x, offset=0):
        still, turning = mx.split(x, [x.shape[-1] - self.rope.dims], axis=-1)
        return mx.concatenate([still, self.rope(turning, offset)], axis=-1)


def train_hy_v4(model):
    """Turns features as transformers does: halves, and of the indexer's heads the last ones. mlx-vlm turns neighbours, and
    the first ones."""
    for layer in model.layers:
        layer.self_attn.rope.traditional = False
        if layer.self_attn.indexer is not None:
            layer.self_attn.indexer.rope.traditional = False
            layer.self_attn.indexer.rope = Tail(layer.self_attn.indexer.rope)


def plain_hy_v4(args, weights):
    """Tensors that are not packed in eight bits, which mlx-vlm's own code takes for granted."""
    heads, plain = args.num_attention_heads, args.qk_nope_head_dim
    for i in range(args.num_hidden_layers):
        path = f"model.layers.{i}"
        rows = weights.pop(f"{path}.self_attn.kv_b_proj.weight").reshape(heads, plain + args.v_head_dim, -1)
        weights[f"{path}.self_attn.embed_q.weight"] = mx.contiguous(rows[:, :plain].swapaxes(-1, -2))
        weights[f"{path}.self_attn.unembed_out.weight"] = mx.contiguous(rows[:, plain:])
        for part in ("gate_up_proj", "down_proj"):
            if f"{path}.mlp.experts.{part}" in weights:
                weights[f"{path}.mlp.switch_mlp.{part}.weight"] = weights.pop(f"{path}.mlp.experts.{part}")
    return weights


class Text(nn.Module):
    def __init__(self, language_model):
        super().__init__()
        self.language_model = language_model

    def __call__(self, inputs, cache=None):
        return self.language_model(inputs, cache=cache).logits

    @property
    def model_type(self):
        return self.language_model.args.model_type

    @property
    def layers(self):
        return self.language_model.layers

    def make_cache(self):
        return self.language_model.make_cache()

    def sanitize(self, weights):
        own = {name.removeprefix("language_model."): x for name, x in weights.items()}
        own = PREPARED.get(self.model_type, lambda _, tensors: tensors)(self.language_model.args, own)
        return {f"language_model.{name}": x for name, x in self.language_model.sanitize(own).items()}


class Tokens:
    """In place of a cache: the tokens so far, which are all read anew."""

    def __init__(self):
        self.state = None

    def is_trimmable(self):
        return False


class Whole(Text):
    """A model that reads all tokens at once, whatever it has read before: mlx-vlm's groups of DeepSeek V4 forget, from one
    call to the next, the group that they overlap with."""

    def __call__(self, inputs, cache=None):
        past = cache[0].state if cache else None
        tokens = inputs if past is None else mx.concatenate([past, inputs], axis=1)
        if cache:
            cache[0].state = tokens
        logits = self.language_model(tokens, cache=self.language_model.make_cache()).logits
        return logits[:, -inputs.shape[1] :]

    def make_cache(self):
        return [Tokens()]


def wide_groups(language):
    """Turns features, makes groups, and attends to chosen ones in float32, as transformers does; mlx-vlm rounds in between."""

    def pooled(values, gates):
        return (values.astype(mx.float32) * mx.softmax(gates, axis=-2)).sum(axis=-2).astype(values.dtype)

    def simple(kv, gate, ape, head_dim):
        return pooled(kv, gate.astype(mx.float32) + ape)

    def overlapping(kv, gate, ape, head_dim):
        gate = gate.astype(mx.float32) + ape
        (kv_a, kv_b), (gate_a, gate_b) = mx.split(kv, 2, axis=-1), mx.split(gate, 2, axis=-1)
        first = [mx.zeros_like(kv_a[:, :1]), mx.full(gate_a[:, :1].shape, -mx.inf)]
        before = [mx.concatenate([one, x[:, :-1]], axis=1) for one, x in zip(first, (kv_a, gate_a))]
        return pooled(mx.concatenate([before[0], kv_b], axis=2), mx.concatenate([before[1], gate_b], axis=2))

    attend = language._sparse_pooled_attention

    def attended(q, local_kv, pooled, topk, local_mask, pooled_mask, scale, sinks):
        wide = [x.astype(mx.float32) for x in (q, local_kv, pooled)]
        return attend(*wide, topk, local_mask, pooled_mask, scale, sinks.astype(mx.float32)).astype(q.dtype)

    turn = language.DeepseekV4RoPE.__call__

    def turned(self, x, *args, **options):
        return turn(self, x.astype(mx.float32), *args, **options).astype(x.dtype)

    language.DeepseekV4RoPE.__call__ = turned
    language._simple_compress_kv, language._overlap_compress_kv = simple, overlapping
    language._sparse_pooled_attention = attended


WIDENED = set()


def make_deepseek_v4(maker, config):
    """Any number of tokens a group, where mlx-vlm has 128; and no path of its own for a few tokens."""
    language = maker.language
    if language not in WIDENED:
        WIDENED.add(language)
        wide_groups(language)
    rates = {"sliding_attention": 0, **config["compress_rates"]}
    ratios = [rates[kind] for kind in config["layer_types"]]
    args = maker.config.ModelConfig.from_dict({**config, "compress_ratios": [128 if r > 4 else r for r in ratios]})
    args.compress_ratios = ratios
    kinds = {0: language.LocalAttention, 4: language.SparseCompressedAttention}
    language.v4_attention_factory = lambda args, i: kinds.get(ratios[i], language.CompressedAttention)(args, i)
    for name in ("linear", "deepseek_v4.hyper_connection", "deepseek_v4.language", "switch_layers"):
        importlib.import_module(f"mlx_vlm.models.{name}").DECODE_BLOCK_SIZE = 0
    return Whole(language.LanguageModel(args))


class Prefixed(Text):
    """Whose sanitize knows names with mlx-vlm's prefix alone."""

    def sanitize(self, weights):
        own = {
            f"language_model.{name.replace('model.language_model.', 'model.').removeprefix('language_model.')}": x
            for name, x in weights.items()
        }
        return self.language_model.sanitize(own)


def combine(routed, weights, shared, residual=None):
    """The sum of experts' results in float32, rounded once."""
    return (routed * weights[..., None]).sum(axis=-2).astype(routed.dtype) + shared


def fit_glm5_next(language):
    """The bias that fades are made with is float32, gates' sigmoids are rounded once, and one token's query goes to the latent
    space as elsewhere, while all else takes the path for many."""
    update = language.gated_delta_update

    def updated(q, k, v, a, b, A_log, dt_bias, **options):
        return update(q, k, v, a.astype(mx.float32), b, A_log, dt_bias, **options)

    def sigmoid(x):
        return mx.sigmoid(x.astype(mx.float32)).astype(x.dtype)

    attend = language.Glm5NextAttention._attend

    def attended(self, q, *args):
        language.DECODE_BLOCK_SIZE = int(q.shape[2] == 1)
        result = attend(self, q, *args)
        language.DECODE_BLOCK_SIZE = 0
        return result

    language.Glm5NextAttention._attend = attended
    language.gated_delta_update = updated
    language.mx = types.SimpleNamespace(**{**vars(mx), "sigmoid": sigmoid})


def make_glm5_next(maker, config):
    if maker.language not in WIDENED:
        WIDENED.add(maker.language)
        fit_glm5_next(maker.language)
    model = maker.language.LanguageModel(maker.config.TextConfig.from_dict(config["text_config"]))
    for layer in model.layers:
        if hasattr(layer.mlp, "switch_mlp"):
            layer.mlp.switch_mlp._combine = combine
    # The path for a few tokens adds the residual stream to experts' results by itself.
    for name in ("linear", "deepseek_v4.hyper_connection", "glm5_next.language", "switch_layers"):
        importlib.import_module(f"mlx_vlm.models.{name}").DECODE_BLOCK_SIZE = 0
    return Prefixed(model)


class Qwen4(Text):
    """Called with a cache always, which tells positions."""

    def __call__(self, inputs, cache=None):
        return self.language_model.lm_head(self.language_model.model(inputs, cache=cache or self.make_cache()))

    def sanitize(self, weights):
        own = {name: x for name, x in tree_flatten(self.parameters()) if x.dtype == mx.int64}
        for name, x in weights.items():
            name = name.replace("model.language_model.", "language_model.model.").replace("shard_", "shards.")
            name = name.replace("lm_head", "language_model.lm_head").replace("experts.down_proj", "switch_mlp.down_proj.weight")
            if "experts.gate_up_proj" in name:
                for part, half in zip(("gate_proj", "up_proj"), mx.split(x, 2, axis=1)):
                    own[name.replace("experts.gate_up_proj", f"switch_mlp.{part}.weight")] = mx.contiguous(half)
            else:
                own[name] = mx.contiguous(x.swapaxes(1, 2)) if name.endswith("conv1d.weight") else x
        return own


def make_qwen4_exp(maker, config):
    """Turns features by MLX's own operation, and stretches queries and keys as in Qwen 3.5; mlx-vlm rounds in between."""
    language = maker.language
    if language not in WIDENED:
        WIDENED.add(language)
        rotary = importlib.import_module("mlx_vlm.models.rope_utils").MRoPERotaryEmbedding
        base = config["text_config"]["rope_parameters"]["rope_theta"]

        def turned(self, q, k, position_ids, **options):
            places = position_ids.reshape(-1, position_ids.shape[-1])[0].tolist()
            step = places[1] - places[0] if len(places) > 1 else 1
            how = {"traditional": False, "base": base, "scale": step, "offset": places[0] // step}
            return tuple(mx.fast.rope(x, self.dim, **how) for x in (q, k))

        rotary.apply_rotary = turned
        language.Qwen4ExpGatedDeltaNet._normalize_qk = language.Qwen3_5GatedDeltaNet._normalize_qk
    return Qwen4(language.LanguageModel(maker.config.TextConfig.from_dict(config["text_config"])))


MADE = {"deepseek_v4": make_deepseek_v4, "glm5_next": make_glm5_next, "qwen4_exp": make_qwen4_exp}
TRAINED, PREPARED = {"hy_v4": train_hy_v4}, {"hy_v4": plain_hy_v4}


class Maker:
    """A model's arguments and the model, in the two calls that mlx-lm makes of them."""

    def __init__(self, model_type):
        bare_package()
        self.config = importlib.import_module(f"mlx_vlm.models.{model_type}.config")
        self.language = importlib.import_module(f"mlx_vlm.models.{model_type}.language")
        self.kind = BEYOND[model_type]

    def from_dict(self, config):
        if config["model_type"] in MADE:
            return config
        return getattr(self.config, self.kind).from_dict(config.get("text_config", config))

    def __call__(self, args):
        if isinstance(args, dict):
            return MADE[args["model_type"]](self, args)
        model = self.language.LanguageModel(args)
        TRAINED.get(args.model_type, lambda _: None)(model)
        return Text(model)


def classes(config):
    """As mlx-lm's `_get_classes`; None for models of its own."""
    if config["model_type"] not in BEYOND:
        return None
    maker = Maker(config["model_type"])
    return maker, maker
