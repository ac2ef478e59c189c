"""Muse Spark's kernels, which run on Metal alone, as MLX's own operations: what each computes, rounded where it rounds.

Sums over experts are made in float32 and rounded once, where the kernel rounds with each expert.
"""

import mlx.core as mx
from mlx_lm.models import muse_spark


def wide(x):
    return x.astype(mx.float32)


def norm(x, eps):
    return mx.fast.rms_norm(x, None, eps)


def expert_routing(logits, bias, *, top_k, multiplier, score_eps, route_scale):
    scores = mx.sigmoid(logits * multiplier)
    chosen = mx.argpartition(-(scores + wide(bias)), kth=top_k - 1, axis=-1)[..., :top_k]
    weights = mx.take_along_axis(scores, chosen, axis=-1)
    return chosen, weights / (weights.sum(axis=-1, keepdims=True) + score_eps) * route_scale


def norm_add_norm(branch, stream, *, alpha, beta, post_weight, post_eps, next_norm):
    scaled = branch if post_weight is None else post_weight * branch
    h = wide(alpha) * stream + wide(beta) * wide(norm(scaled, post_eps))
    return h, None if next_norm is None else next_norm(h).astype(branch.dtype)


def post_expert_norm_combine(experts, weights, *, norm_weight, eps):
    normed = norm(wide(experts) * wide(norm_weight), eps)
    return (normed * wide(weights.astype(experts.dtype))[..., None]).sum(axis=-2).astype(experts.dtype)


def qk_norm(qkvg, *, n_heads, n_kv_heads, head_dim, eps, query_scale):
    q_dim, k_dim = n_heads * head_dim, n_kv_heads * head_dim
    q = norm(qkvg[..., :q_dim].reshape(*qkvg.shape[:-1], n_heads, head_dim), eps)
    k = norm(qkvg[..., q_dim : q_dim + k_dim].reshape(*qkvg.shape[:-1], n_kv_heads, head_dim), eps)
    return (wide(q) * query_scale).astype(q.dtype), k


def qk_norm_rope(qkvg, *, rope_base, offset, **options):
    def turned(x):
        x = x.transpose(0, 2, 1, 3)
        x = mx.fast.rope(x, x.shape[-1], traditional=True, base=rope_base, scale=1.0, offset=offset)
        return x.transpose(0, 2, 1, 3)

    q, k = qk_norm(qkvg, **options)
    return turned(q), turned(k)


def rms_norm_sigmoid_gate(x, gate, *, eps):
    normed = norm(wide(x), eps).transpose(0, 2, 1, 3)
    return (normed.reshape(gate.shape) * mx.sigmoid(wide(gate))).astype(x.dtype)


class Mlx:
    """MLX as the model sees it: the dtype that the model is made for is that of its weights."""

    def __init__(self):
        self.bfloat16 = mx.float32

    def __getattr__(self, name):
        return getattr(mx, name)


def call(self, inputs, *, cache=None, input_embeddings=None):
    """Muse Spark, whatever its head is packed as."""
    out = self.model.language_model(inputs, cache=cache, input_embeddings=input_embeddings)
    cap = self.args.text.final_logit_softcapping
    return mx.tanh(wide(self.lm_head(out)) * self.args.text.output_multiplier / cap) * cap


def unfuse_muse_spark():
    muse_spark.Model.__call__ = call
    for kernel in (expert_routing, norm_add_norm, post_expert_norm_combine, qk_norm, qk_norm_rope, rms_norm_sigmoid_gate):
        setattr(muse_spark, kernel.__name__, kernel)
    muse_spark.mx = Mlx()


def made_for(dtype):
    if isinstance(muse_spark.mx, Mlx):
        muse_spark.mx.bfloat16 = dtype
