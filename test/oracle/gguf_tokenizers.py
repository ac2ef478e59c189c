"""
What llama.cpp makes of texts with tokenizers in GGUF files that are neither byte-level nor of its own SentencePiece kind. They
are trained here, on a few sentences, so that they are small.
"""

import json
import os
import subprocess
import sys
import tempfile
import urllib.request

# This folder has a gguf.py of its own.
here = sys.path.pop(0)
import gguf
import numpy as np
import tokenizers
import xllamacpp

TEXTS = [
    "Hello world", "  two  spaces\n\nand lines ", "The quick brown fox doesn't jump over 12345 lazy dogs.", "ünïcode café Ελληνικά",
    "日本語 and 🦊", "tabs\tand\r\nends", "a", "", "UPPER lower MiXed", "word-with-hyphens, (brackets) & signs", "x" * 40,
    "<end>in the middle<end>", " leading", "trailing ",
]
CORPUS = [
    "The quick brown fox jumps over the lazy dog, and the dog does not mind at all.",
    "Hello world, said the program; and nobody answered the program, for it was 12345 in the morning.",
    "Words with hyphens (and brackets) are taken apart; spaces, lines and tabs are kept or dropped.",
    "Upper and lower case letters, signs & numbers: one, two, three, four, five; jumping and leading.",
] * 20
SPACE = "▁"
NORMAL, UNKNOWN, CONTROL, BYTE = 1, 2, 3, 6


def unigram():
    model = tokenizers.Tokenizer(tokenizers.models.Unigram())
    model.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
    trainer = tokenizers.trainers.UnigramTrainer(vocab_size=200, special_tokens=["<pad>", "<end>", "<unk>"], unk_token="<unk>")
    model.train_from_iterator(CORPUS, trainer)
    vocab = json.loads(model.to_str())["model"]["vocab"]
    types = [CONTROL, CONTROL, UNKNOWN] + [NORMAL] * (len(vocab) - 3)
    return [token for token, _ in vocab], types, {"scores": [score for _, score in vocab]}


def pieces():
    model = tokenizers.Tokenizer(tokenizers.models.WordPiece(unk_token="[UNK]"))
    model.normalizer = tokenizers.normalizers.BertNormalizer()
    model.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    names = ["[PAD]", "<end>", "[UNK]", "[CLS]", "[SEP]"]
    model.train_from_iterator(CORPUS, tokenizers.trainers.WordPieceTrainer(vocab_size=200, special_tokens=names))
    vocab = sorted(model.get_vocab().items(), key=lambda entry: entry[1])
    types = [CONTROL, CONTROL, UNKNOWN, CONTROL, CONTROL] + [NORMAL] * (len(vocab) - 5)
    turned = [
        token if kind != NORMAL else token[2:] if token.startswith("##") else SPACE + token
        for (token, _), kind in zip(vocab, types)
    ]
    return turned, types, {}


def merged():
    model = tokenizers.Tokenizer(tokenizers.models.BPE(byte_fallback=True, unk_token="<unk>"))
    model.normalizer = tokenizers.normalizers.Replace(" ", SPACE)
    model.pre_tokenizer = tokenizers.pre_tokenizers.Split(SPACE, "merged_with_next")
    byte_tokens = [f"<0x{byte:02X}>" for byte in range(256)]
    names = ["<pad>", "<end>", "<unk>", *byte_tokens]
    model.train_from_iterator(CORPUS, tokenizers.trainers.BpeTrainer(vocab_size=500, special_tokens=names))
    parts = json.loads(model.to_str())["model"]
    vocab = sorted(parts["vocab"].items(), key=lambda entry: entry[1])
    types = [CONTROL, CONTROL, UNKNOWN] + [BYTE] * 256 + [NORMAL] * (len(vocab) - 259)
    merges = [" ".join(pair) if isinstance(pair, list) else pair for pair in parts["merges"]]
    return [token for token, _ in vocab], types, {"merges": merges}


def longest():
    """Every byte, and words of the corpus with and without what is around them: some are beginnings of others."""
    words = sorted({part for text in CORPUS for word in text.split(" ") for part in (word, " " + word, word[:3], word[:5] + " ")})
    found = [bytes([byte]) for byte in range(256)] + [word.encode() for word in words if len(word) > 1]
    found += ["ü".encode(), "café".encode(), "日本".encode(), "日".encode()[:2], b"  ", b"    ", b"\n\n", b"it's", b"a\\b", b"xxx"]
    names = [repr(token)[2:-1] for token in dict.fromkeys(found)]
    return ["<s>", *names, "[PAD]"], [CONTROL] + [NORMAL] * len(names) + [5], {}


KINDS = {
    "t5": ("t5", unigram, {"add_space_prefix": True}),
    "t5 without a space ahead": ("t5", unigram, {}),
    "t5 without spare spaces": ("t5", unigram, {"remove_extra_whitespaces": True}),
    "bert": ("bert", pieces, {}),
    "gemma4": ("gemma4", merged, {}),
    "rwkv": ("rwkv", longest, {}),
}


def write(path, model, tokens, types, lists, flags):
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(256), writer.add_embedding_length(32), writer.add_block_count(1)
    writer.add_feed_forward_length(32), writer.add_head_count(1), writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model(model), writer.add_token_list(tokens), writer.add_token_types(types)
    writer.add_tokenizer_pre("default")
    if "scores" in lists:
        writer.add_token_scores(lists["scores"])
    if "merges" in lists:
        writer.add_token_merges(lists["merges"])
    writer.add_eos_token_id(1), writer.add_unk_token_id(2), writer.add_pad_token_id(0)
    if model == "bert":
        writer.add_uint32("tokenizer.ggml.cls_token_id", 3), writer.add_uint32("tokenizer.ggml.seperator_token_id", 4)
    for name, value in flags.items():
        writer.add_bool(f"tokenizer.ggml.{name}", value)
    square = ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"]
    shapes = {"token_embd": (len(tokens), 32), "output_norm": (32,), "blk.0.attn_norm": (32,), "blk.0.ffn_norm": (32,)}
    for name, shape in {**shapes, **{f"blk.0.{name}": (32, 32) for name in square}}.items():
        writer.add_tensor(f"{name}.weight", np.zeros(shape, np.float32))
    writer.write_header_to_file(), writer.write_kv_data_to_file(), writer.write_tensors_to_file()
    writer.close()


def tokenize(path):
    params = xllamacpp.CommonParams()
    params.model.path = path
    params.n_ctx, params.n_parallel, params.warmup, params.fit_params = 256, 1, False, False
    server = xllamacpp.Server(params)

    def ids(text):
        body = {"content": text, "add_special": False, "parse_special": True}
        headers = {"content-type": "application/json"}
        request = urllib.request.Request(f"{server.listening_address}/tokenize", json.dumps(body).encode(), headers)
        return json.load(urllib.request.urlopen(request))["tokens"]

    return [ids(text) for text in TEXTS]


if len(sys.argv) > 1:
    # A process for each model: llama.cpp aborts where something is wrong.
    print(json.dumps(tokenize(sys.argv[1])), flush=True)
    os._exit(0)

sys.path.insert(0, here)
import encode

rows = []
with tempfile.TemporaryDirectory() as folder:
    for name, (model, train, flags) in KINDS.items():
        tokens, types, lists = train()
        path = f"{folder}/tokenizer.gguf"
        write(path, model, tokens, types, lists, flags)
        ran = subprocess.run([sys.executable, __file__, path], capture_output=True, text=True, timeout=120)
        if ran.returncode != 0:
            sys.exit(f"llama.cpp does not take {name}:\n{ran.stderr[-3000:]}")
        ids = json.loads(ran.stdout.splitlines()[-1])
        described = {"model": model, "tokens": tokens, "types": types, **lists, "flags": flags}
        rows.append([name, {**described, "texts": [list(pair) for pair in zip(TEXTS, ids)]}])
encode.write_lines("gguf-tokenizers.json", rows)
