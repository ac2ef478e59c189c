"""A checkpoint that Python wrote: a random Llama in Hugging Face's layout, converted by `mlx_lm.convert -q`.

test/fixtures/checkpoint/ is the converted folder as it came out (less the model card); checkpoint.json is what
`mlx_lm.generate` prints for it. `checkpoint.py --search` looks for a salt whose greedy choices are far from a tie.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ["MLX_DISABLE_COMPILE"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_VERBOSITY"] = "error"

import mlx.core as mx
from mlx_lm import convert, load, stream_generate
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import GenerationConfig, LlamaConfig, PreTrainedTokenizerFast

import encode
from weights import weight

FOLDER = encode.FIXTURES / "checkpoint"
SALT = 52
PROMPT = "A fox met a crow.\\nWhat did the fox say? Ünïcode 你好 🙂"
MAX_TOKENS = 48
BEGIN, OPEN, CLOSE = "<|begin|>", "<|open|>", "<|close|>"
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<|open|>{{ message['role'] }}\n{{ message['content'] }}<|close|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|open|>assistant\n{% endif %}"
)
TEXT = """
The fox and the crow. A crow sat in a tree with a piece of cheese in her beak. A fox came by and wanted the cheese.
"What a fine bird you are!" said the fox. "If only you could sing as well as you look." The crow opened her beak to
sing, and the cheese fell down. The fox took it and ran away. Do not trust those who praise you for what you have.
The lion and the mouse. A mouse woke a lion, who caught her under his paw. "Let me go, and one day I will help you,"
said the mouse. The lion laughed and let her go. Later the lion was caught in a net, and the mouse cut the ropes.
Numbers: 1, 2, 3, 10, 20, 300. Größe, naïve, déjà vu, 你好, 世界, 🙂🙃.
"""


def tokenizer():
    """A byte-level BPE of 384 tokens trained on TEXT; encoding adds the begin token."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = [BEGIN, OPEN, CLOSE]
    bpe.train_from_iterator(
        [TEXT], trainers.BpeTrainer(vocab_size=384, special_tokens=special, initial_alphabet=sorted(alphabet))
    )
    bpe.post_processor = processors.TemplateProcessing(
        single=f"{BEGIN} $A", pair=f"{BEGIN} $A $B", special_tokens=[(BEGIN, bpe.token_to_id(BEGIN))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe, bos_token=BEGIN, eos_token=CLOSE, pad_token=CLOSE, chat_template=TEMPLATE
    )


def shapes(config):
    """Tensor name -> shape of a Llama checkpoint on the Hub."""
    hidden, inner, vocab = config.hidden_size, config.intermediate_size, config.vocab_size
    kv = config.num_key_value_heads * config.head_dim
    yield "model.embed_tokens.weight", (vocab, hidden)
    for i in range(config.num_hidden_layers):
        layer = f"model.layers.{i}"
        for name, shape in {
            "self_attn.q_proj": (hidden, hidden), "self_attn.k_proj": (kv, hidden), "self_attn.v_proj": (kv, hidden),
            "self_attn.o_proj": (hidden, hidden), "mlp.gate_proj": (inner, hidden), "mlp.up_proj": (inner, hidden),
            "mlp.down_proj": (hidden, inner), "input_layernorm": (hidden,), "post_attention_layernorm": (hidden,),
        }.items():
            yield f"{layer}.{name}.weight", shape
    yield "model.norm.weight", (hidden,)
    yield "lm_head.weight", (vocab, hidden)


def make(source, salt):
    tok = tokenizer()
    config = LlamaConfig(
        hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        vocab_size=len(tok), max_position_embeddings=512, tie_word_embeddings=False, rms_norm_eps=1e-5,
        bos_token_id=tok.bos_token_id, eos_token_id=tok.eos_token_id, dtype="bfloat16",
        architectures=["LlamaForCausalLM"],
    )
    weights = {name: mx.array(weight(name, shape, salt)).astype(mx.bfloat16) for name, shape in shapes(config)}
    config.save_pretrained(source)
    tok.save_pretrained(source)
    GenerationConfig(bos_token_id=tok.bos_token_id, eos_token_id=tok.eos_token_id).save_pretrained(source)
    mx.save_safetensors(str(source / "model.safetensors"), weights, {"format": "pt"})


def converted(salt, folder):
    """The quantized folder for a salt, without its model card."""
    with tempfile.TemporaryDirectory() as source:
        make(Path(source), salt)
        shutil.rmtree(folder, ignore_errors=True)
        convert(source, str(folder), quantize=True)
    (folder / "README.md").unlink()


def prompts(tok):
    raw = PROMPT.replace("\\n", "\n")
    return {
        "template": tok.apply_chat_template([{"role": "user", "content": raw}], add_generation_prompt=True),
        "plain": tok.encode(raw),
    }


def trace(folder):
    """Per prompt: its ids, the greedy ids, why it stopped, and the smallest gap between the two best tokens."""
    model, tok = load(str(folder))
    runs = {}
    for kind, ids in prompts(tok).items():
        steps = list(stream_generate(model, tok, list(ids), max_tokens=MAX_TOKENS))
        tops = [mx.topk(s.logprobs.astype(mx.float32), 2).tolist() for s in steps]
        runs[kind] = {
            "prompt": list(ids),
            "tokens": [s.token for s in steps],
            "finish_reason": steps[-1].finish_reason,
            "gap": min(abs(a - b) for a, b in tops),
        }
    return runs


def printed(folder, *flags):
    """What the command prints, to the byte."""
    command = [sys.executable, "-m", "mlx_lm", "generate", "--model", str(folder), "--prompt", PROMPT]
    command += ["--max-tokens", str(MAX_TOKENS), "--temp", "0", "--verbose", "False", *flags]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def search(tries):
    best = 0
    with tempfile.TemporaryDirectory() as folder:
        for salt in range(tries):
            converted(salt, Path(folder))
            runs = trace(folder)
            reasons = sorted(r["finish_reason"] for r in runs.values())
            gap = min(r["gap"] for r in runs.values())
            if reasons == ["length", "stop"] and gap > best and all(len(set(r["tokens"])) > 12 for r in runs.values()):
                best = gap
                print("salt", salt, "gap", gap, [len(r["tokens"]) for r in runs.values()], flush=True)


if __name__ == "__main__":
    if "--search" in sys.argv:
        search(300)
    else:
        converted(SALT, FOLDER)
        runs = trace(FOLDER)
        runs["template"]["text"] = printed(FOLDER)
        runs["plain"]["text"] = printed(FOLDER, "--ignore-chat-template")
        for kind, run in runs.items():
            print(f"  {kind}: smallest gap {run.pop('gap'):.1e}, {len(run['tokens'])} tokens, {run['finish_reason']}")
        encode.write("checkpoint.json", {"prompt": PROMPT, "max_tokens": MAX_TOKENS, **runs})
