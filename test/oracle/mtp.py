"""Draft layers (multi-token prediction), which mlx-lm drops: what the first and the second draft are made of.

    python mtp.py [NAME ...]

The reference is written down here after the models' papers, with the blocks of mlx-lm: a draft layer is a further layer
of the model, behind a projection of normed embeddings and normed hidden states. Names of tensors are those of the
published checkpoints.
"""

import os
import sys

os.environ["MLX_DISABLE_COMPILE"] = "1"  # compiled equals eager bit for bit on the CPU, and needs g++

import mlx.core as mx
from mlx.utils import tree_flatten
from mlx_lm.models.base import create_attention_mask
from mlx_lm.utils import _get_classes

import encode
from architectures import CONFIGS, SALTS, checkpoint
from models import COLUMNS, PROMPT, build
from weights import weight

DEEPSEEK = {"embedding": "enorm", "hidden": "hnorm", "projection": "eh_proj", "last": "shared_head.norm"}
FLASH = {**DEEPSEEK, "last": "final_layernorm"}
MIMO = {
    "embedding": "token_layernorm", "hidden": "hidden_layernorm", "projection": "input_proj", "last": "final_layernorm",
}
QWEN = {"embedding": "pre_fc_norm_embedding", "hidden": "pre_fc_norm_hidden", "projection": "fc", "last": "norm"}


class Behind:
    """Draft layers under the names of the layers behind the model's last, with copies of embedding and head."""

    # How many draft layers there are, and of how many blocks each is.
    more, size = 1, 1
    # How far back they see; None for all.
    window = None
    parts, copies, hidden_first, before_norm, as_array, chained = DEEPSEEK, True, False, False, True, True

    def __init__(self, name):
        self.name, self.config = name, CONFIGS[name]
        self.text = self.config.get("text_config", self.config)
        self.layers = self.text.get("num_hidden_layers")

    def wider(self):
        return {**self.config, "num_hidden_layers": self.layers + self.more}

    def donor(self, index):
        """The layer of the wider model that a draft layer is."""
        return self.layers + index

    def prefix(self, index):
        return f"model.layers.{self.layers + index}."

    def home(self, index):
        """Where the parts beside the block's are."""
        return self.prefix(index)

    def end(self, index):
        """Where the last norm is."""
        return self.home(index)

    def published(self, path):
        return path

    def saved(self):
        """The configuration that a checkpoint has."""
        return self.config

    def head(self, index):
        """Where the layer's own head is."""
        return None

    def shift(self, norm):
        return norm


class Two(Behind):
    more = 2


class Grouped(Behind):
    as_array = False


class Mimo(Grouped):
    parts, copies, hidden_first = MIMO, False, True

    def prefix(self, index):
        return f"model.mtp_layers.{index}."


class Flash(Grouped):
    parts, copies, more, before_norm, chained = FLASH, False, 2, True, False

    def wider(self):
        patterns = {"hybrid_layer_pattern": [1, 1], "moe_layer_freq": [0, 0]}
        return {**super().wider(), **{field: self.config[field] + own for field, own in patterns.items()}}

    def prefix(self, index):
        return f"model.mtp.layers.{index}."

    def published(self, path):
        return path.replace("post_attention_layernorm", "pre_mlp_layernorm")


class Qwen(Grouped):
    """Layers with attention; the parts beside the block's are one for all. Norms are saved less one."""

    parts, copies = QWEN, False

    def wider(self):
        text = {**self.text, "num_hidden_layers": self.donor(0) + 1}
        return {**self.config, "text_config": text} if "text_config" in self.config else text

    def donor(self, index):
        interval = self.text["full_attention_interval"]
        return -(-(self.layers + 1) // interval) * interval - 1

    def prefix(self, index):
        return f"mtp.layers.{index}."

    def home(self, index):
        return "mtp."

    def shift(self, norm):
        return norm + 1


class Pattern(Grouped):
    """Draft layers of several blocks, each of which is attention or experts."""

    parts, copies, size = FLASH, False, 2

    def __init__(self, name):
        super().__init__(name)
        self.layers = len(self.config["hybrid_override_pattern"])

    def wider(self):
        return {**self.config, "hybrid_override_pattern": self.config["hybrid_override_pattern"] + "*E"}

    def prefix(self, index):
        return f"mtp.layers.{index}."

    def home(self, index):
        return self.prefix(index * self.size)

    def end(self, index):
        return self.prefix(index * self.size + self.size - 1)


class Bailing(Behind):
    parts, copies = FLASH, False


class Hybrid(Bailing):
    """Draft layers see all, as the last of each group of layers does."""

    def donor(self, index):
        group = self.text["layer_group_size"]
        return -(-(self.layers + 1) // group) * group - 1

    def wider(self):
        return {**self.config, "num_hidden_layers": self.donor(0) + 1}


class Ernie(Grouped):
    """A dense layer ahead of the model's own last norm."""

    parts = {"embedding": "mtp_emb_norm.0", "hidden": "mtp_hidden_norm.0", "projection": "mtp_linear_proj.0", "last": "norm"}
    copies, before_norm = False, True

    def wider(self):
        return {**self.config, "moe_layer_start_index": 1}

    def donor(self, index):
        return 0

    def prefix(self, index):
        return f"model.mtp_block.{index}."

    def home(self, index):
        return "model."


class Step(Two):
    """Dense layers that slide, each with a head of its own. Norms are saved less one."""

    parts = {**DEEPSEEK, "last": "transformer.shared_head.norm"}
    copies, before_norm, as_array = False, True, False

    def __init__(self, name):
        super().__init__(name)
        self.window = self.config["sliding_window"]

    def saved(self):
        lists = {
            "rope_theta": 1e4, "layer_types": "sliding_attention", "partial_rotary_factors": 1.0, "swiglu_limits": 0,
            "swiglu_limits_shared": 0.25,
        }
        return {**self.config, **{field: self.config[field] + [own] * self.more for field, own in lists.items()}}

    def wider(self):
        return {**self.saved(), "num_hidden_layers": self.layers + self.more}

    def head(self, index):
        return f"{self.prefix(index)}transformer.shared_head.output.weight"

    def shift(self, norm):
        return norm + 1


FAMILIES = {
    "deepseek_v3 two": Two, "qwen3_5": Qwen, "qwen3_5_moe": Qwen, "qwen3_next": Qwen, "deepseek_v3": Behind, "deepseek_v32": Behind,
    "glm_moe_dsa": Behind, "glm4_moe_lite": Behind, "glm4_moe": Grouped, "mimo": Mimo, "mimo_v2_flash": Flash,
    "nemotron_h": Pattern, "bailing_moe": Bailing, "bailing_hybrid": Hybrid, "bailing_moe_v3": Hybrid, "ernie4_5_moe": Ernie,
    "step3p5": Step,
}


def core(model):
    return getattr(model, "language_model", model)


def trunk_of(model):
    """The decoder, and its norm and embedding by name."""
    lm = core(model)
    if "backbone" in lm:
        return lm.backbone, "norm_f", "embeddings"
    return lm.model, "norm", "word_embeddings" if "word_embeddings" in lm.model else "embed_tokens"


def blocks(family, salt):
    """The draft layers' blocks, and the shapes of their tensors by published name."""
    Model, Args = _get_classes(family.wider())
    model = Model(Args.from_dict(family.wider()))
    names, shapes, tensors = {}, {}, {}
    for path, shape in checkpoint(family.name, tree_flatten(model.parameters())).items():
        published = path
        for index in range(family.more * family.size):
            marker = f"layers.{family.donor(index)}."
            if marker in path:
                published = family.published(family.prefix(index) + path.split(marker)[1])
                shapes[published] = shape
        tensors[path] = mx.array(weight(published, shape, salt))
    model.load_weights(list(model.sanitize(tensors).items()))
    model.eval()
    inner = [trunk_of(model)[0].layers[family.donor(index)] for index in range(family.more * family.size)]
    return [inner[i : i + family.size] for i in range(0, len(inner), family.size)], shapes


def rms(x, family, part, shapes, salt):
    fields = ("rms_norm_eps", "layernorm_epsilon", "layer_norm_epsilon")
    eps = next((family.text[field] for field in fields if field in family.text), 1e-5)
    return mx.fast.rms_norm(x, family.shift(tensor(f"{part}.weight", [x.shape[-1]], shapes, salt)), eps)


def tensor(name, shape, shapes, salt):
    shapes[name] = shape
    return mx.array(weight(name, shape, salt))


def draft(family, group, index, embeddings, hidden, shapes, salt):
    """Hidden states (1, T, D) of a draft layer, and those behind its norm."""
    home = family.home(index)
    e = rms(embeddings, family, home + family.parts["embedding"], shapes, salt)
    h = rms(hidden, family, home + family.parts["hidden"], shapes, salt)
    size = e.shape[-1]
    projection = tensor(f"{home}{family.parts['projection']}.weight", [size, 2 * size], shapes, salt)
    x = mx.concatenate([h, e] if family.hidden_first else [e, h], axis=-1) @ projection.T
    for block in group:
        x = block(x, create_attention_mask(x, None, return_array=family.as_array, window_size=family.window), None)
    return x, rms(x, family, family.end(index) + family.parts["last"], shapes, salt)


def fixture(title):
    name = title.split()[0]
    salt = SALTS.get(name, 0)
    family = FAMILIES[title](name)
    model, shapes = build(name, salt)
    made, own = blocks(family, salt)
    lm = core(model)
    trunk, norm, embedding = trunk_of(model)
    embed, last = trunk[embedding], trunk[norm]

    def scores(h, index=None):
        own_head = None if index is None else family.head(index)
        if own_head:
            return h @ tensor(own_head, [family.text["vocab_size"], h.shape[-1]], own, salt).T
        return lm.lm_head(h) if "lm_head" in lm else embed.as_linear(h)

    normed = trunk(mx.array([PROMPT]))
    trunk[norm] = lambda x: x
    before = trunk(mx.array([PROMPT]))
    trunk[norm] = last
    hidden = before if family.before_norm else normed
    token = mx.argmax(scores(normed)[0, -1]).item()

    drafts, results, gaps = [], [], []

    def choose(logits):
        best, second = mx.topk(logits[0, -1], 2).tolist()[::-1]
        gaps.append(best - second)
        drafts.append(mx.argmax(logits[0, -1]).item())
        results.append({"logits": encode.float32(logits[..., ::COLUMNS]), "last": encode.float32(logits[0, -1])})

    known = [*PROMPT, token]
    def states(streamed, normed):
        return streamed if family.before_norm else normed

    streamed, out = draft(family, made[0], 0, embed(mx.array([known[1:]])), hidden, own, salt)
    choose(scores(out, 0))
    if family.more == 1:
        # The layer takes its own result for the next hidden state.
        further = mx.concatenate([hidden, states(streamed, out)[:, -1:]], axis=1)
        _, out = draft(family, made[0], 0, embed(mx.array([[*known[1:], drafts[0]]])), further, own, salt)
        choose(scores(out, 0))
    else:
        above = states(streamed, out) if family.chained else hidden
        _, out = draft(family, made[1], 1, embed(mx.array([[*known[2:], drafts[0]]])), above, own, salt)
        choose(scores(out, 1))

    if family.copies:
        for index in range(family.more):
            size = [family.text["vocab_size"], family.text["hidden_size"]]
            own[f"{family.prefix(index)}embed_tokens.weight"] = own[f"{family.prefix(index)}shared_head.head.weight"] = size
    data = {
        "config": family.saved(), "salt": salt, "weights": {**shapes, **own}, "prompt": PROMPT, "token": token,
        "columns": COLUMNS, "depth": family.more, "drafts": drafts, "steps": results,
    }
    encode.write(f"mtp/{title.replace(' ', '_')}.json", data)
    print("  smallest gap:", f"{min(gaps):.1e}")


if __name__ == "__main__":
    for name in sys.argv[1:] or list(FAMILIES):
        fixture(name)
