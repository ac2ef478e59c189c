"""Models as they were trained, where mlx-lm 0.32.2 computes something else: what is put right here, our models do."""

import math
import sys
from dataclasses import replace
from types import ModuleType

import mlx.core as mx
from mlx_lm import utils
from mlx_lm.models import hunyuan, phi3small, plamo2, plamo3
from mlx_lm.models.base import create_attention_mask, create_ssm_mask, scaled_dot_product_attention
from mlx_lm.models.cache import ArraysCache, KVCache, RotatingKVCache

from architectures import OLMO_PARTS, UNUSED


OLMO = {
    "d_model": "hidden_size", "n_layers": "num_hidden_layers", "n_heads": "num_attention_heads",
    "embedding_size": "vocab_size",
}


def correct_olmo():
    """mlx-lm wants a package that it does not use, adds a mask to scores that is a name or truths, and knows AI2's names alone."""
    sys.modules.setdefault("hf_olmo", ModuleType("hf_olmo"))
    from mlx_lm.models import olmo

    def attend(self, x, mask=None, cache=None):
        def by_head(part):
            return part.reshape(*part.shape[:2], self.n_heads, -1).transpose(0, 2, 1, 3)

        q, k, v = map(by_head, mx.split(self.att_proj(x), 3, axis=-1))
        offset = cache.offset if cache is not None else 0
        q, k = self.rope(q, offset=offset), self.rope(k, offset=offset)
        if cache is not None:
            k, v = cache.update_and_fetch(k, v)
        out = scaled_dot_product_attention(q, k, v, cache=cache, scale=self.scale, mask=mask)
        return self.attn_out(out.transpose(0, 2, 1, 3).reshape(*x.shape))

    from_dict = olmo.ModelArgs.from_dict

    def args(params):
        if "hidden_size" not in params:
            return from_dict(params)
        named = {ours: params[theirs] for ours, theirs in OLMO.items()}
        return from_dict({**params, **named, "mlp_hidden_size": 2 * params["intermediate_size"]})

    def sanitize(self, weights):
        """transformers' tensors as AI2's: projections of the same input in one."""
        if "model.embed_tokens.weight" not in weights:
            return weights
        prefix = "model.transformer"
        made = {f"{prefix}.wte.weight": weights["model.embed_tokens.weight"], f"{prefix}.ff_out.weight": weights["lm_head.weight"]}
        for i in range(self.args.n_layers):
            for ours, theirs in OLMO_PARTS.items():
                parts = [weights[f"model.layers.{i}.{part}.weight"] for part in theirs]
                made[f"{prefix}.blocks.{i}.{ours}.weight"] = mx.concatenate(parts)
        return made

    olmo.TransformerBlock.attend, olmo.ModelArgs.from_dict, olmo.Model.sanitize = attend, args, sanitize
    utils.MODEL_REMAPPING["hf_olmo"] = "olmo"


def correct_phi3small():
    """mlx-lm lets layers with blocks see the rest of a token's own block, counts blocks of a prompt in pieces from the end, and
    takes the first of every so many layers for one with blocks, not all but the last. It knows unused ids of one size alone."""

    attention, model = phi3small.Attention.__init__, phi3small.Model.__init__

    def init(self, args, index):
        # Blocks of its own choice only.
        attention(self, replace(args, blocksparse_block_size=32), index)
        self.block_sparse = (index + 1) % args.dense_attention_every_n_layers != 0
        self.blocksparse_block_size = args.blocksparse_block_size
        self.blocksparse_num_local_blocks = args.blocksparse_num_local_blocks
        self.blocksparse_vert_stride = args.blocksparse_vert_stride

    def seen(self, q_len, kv_len):
        step = max(1, self.blocksparse_vert_stride // self.n_heads)
        q, k = mx.arange(kv_len - q_len, kv_len)[:, None], mx.arange(kv_len)
        q_block, k_block = q // self.blocksparse_block_size, k // self.blocksparse_block_size
        heads = mx.arange(self.n_heads)[:, None, None] * step + 1
        far = (k_block + heads) % self.blocksparse_vert_stride == 0
        mask = (q >= k) & ((q_block - k_block < self.blocksparse_num_local_blocks) | far)
        return None, mask.reshape(self.n_kv_heads, self.n_q_per_kv, q_len, kv_len)

    sparse = phi3small.Attention._block_sparse_attention

    def made(self, args):
        model(self, args)
        self._dummy_tokenizer_ids = mx.array(UNUSED)

    phi3small.Attention.__init__ = init
    phi3small.Attention._block_sparse_mask = seen
    phi3small.Attention._block_sparse_attention = lambda self, q, k, v, scale, mask: sparse(self, q, k, v, scale, None)
    phi3small.Model.__init__ = made


def correct_hunyuan():
    """mlx-lm leaves experts' weights as they are in a softmax over all; the model was trained with those of several experts of a
    token summing to one."""

    def call(self, x):
        gates = mx.softmax(self.gate(x).astype(mx.float32), axis=-1)
        chosen = mx.argpartition(-gates, kth=self.top_k - 1, axis=-1)[..., : self.top_k]
        scores = mx.take_along_axis(gates, chosen, axis=-1)
        scores = scores / scores.sum(axis=-1, keepdims=True) if self.top_k > 1 else scores
        y = (self.switch_mlp(x, chosen) * scores[..., None]).sum(axis=-2).astype(x.dtype)
        return y + self.shared_mlp(x) if self.use_shared_mlp else y

    hunyuan.MoeBlock.__call__ = call


def correct_plamo():
    """mlx-lm lets all attention of PLaMo 2 see everything, and keeps one token too few of PLaMo 3's windows. It bounds PLaMo 2's
    step sizes from below."""

    def decode(self, x, cache):
        cache = cache or [None] * len(self.layers)
        for index, (layer, own) in enumerate(zip(self.layers, cache)):
            if layer.is_mamba:
                mask = create_ssm_mask(x, own)
            else:
                mask = create_attention_mask(x, own, window_size=window(layer.config, index))
            x = layer(x, mask=mask, cache=own)
        return x

    def window(config, index):
        return None if index in config.full_attention_idx else config.attention_window_size + 1

    def kept(size):
        return RotatingKVCache(max_size=size) if size else KVCache()

    def caches2(self):
        return [
            ArraysCache(size=2) if layer.is_mamba else kept(window(self.config, index))
            for index, layer in enumerate(self.layers)
        ]

    def caches3(self):
        return [kept(None if layer.full_attn else self.config.window_size + 1) for layer in self.layers]

    update = plamo2.ssm_update
    plamo2.ssm_update = lambda *args, **options: update(*args, time_step_limit=(0.0, math.inf), **options)
    plamo2.PlamoDecoder.__call__, plamo2.Model.make_cache, plamo3.Model.make_cache = decode, caches2, caches3


def correct():
    correct_olmo()
    correct_phi3small()
    correct_hunyuan()
    correct_plamo()
