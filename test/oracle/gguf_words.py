"""
How llama.cpp cuts texts, in ids of test/fixtures/text/byte-level's vocabulary: one by one where a GGUF file doesn't say how,
and as a hash of all ids for each rule that mlxlm knows.
"""

import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path

# This folder has a gguf.py of its own.
here = sys.path.pop(0)
import gguf
import numpy as np
import xllamacpp

sys.path.insert(0, here)
import encode

SOURCE = encode.FIXTURES / "text" / "byte-level"
DIMS = 64
WORDS = ["the", " a", "  time", "\n\n", "\t", "IT'S", "it's", "12345", "3.14", "ünïcode", "日本", "🦊", "—", "x=1;", "$5+$6", "~/a|b", "!?...", "   "]
# By these rules, llama.cpp keeps spaces and the digits behind them together before it cuts on; the tokenizers don't.
FROM_RIGHT = {"afmoe", "cohere2moe", "tiny_aya"}
TEXTS = [left + ["", " ", "\n"][i % 3] + right for left in WORDS for i, right in enumerate(WORDS)]


def write_model(path, rule):
    tokenizer = json.loads((SOURCE / "tokenizer.json").read_text())
    ids = dict(tokenizer["model"]["vocab"])
    special = {token["content"]: token["id"] for token in tokenizer["added_tokens"]}
    ids.update(special)
    tokens = sorted(ids, key=ids.get)
    assert [ids[token] for token in tokens] == list(range(len(tokens)))
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(512)
    writer.add_embedding_length(DIMS)
    writer.add_block_count(1)
    writer.add_feed_forward_length(32)
    writer.add_head_count(2)
    writer.add_head_count_kv(1)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_tokenizer_model("gpt2")
    if rule:
        writer.add_tokenizer_pre(rule)
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token in special else 1 for token in tokens])
    writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in tokenizer["model"]["merges"]])
    writer.add_eos_token_id(0)
    writer.add_add_bos_token(False)
    shapes = {"attn_norm": (64,), "attn_q": (64, 64), "attn_k": (32, 64), "attn_v": (32, 64), "attn_output": (64, 64),
              "ffn_norm": (64,), "ffn_gate": (32, 64), "ffn_up": (32, 64), "ffn_down": (64, 32)}
    writer.add_tensor("token_embd.weight", np.zeros((len(tokens), DIMS), np.float32))
    writer.add_tensor("output_norm.weight", np.ones((DIMS,), np.float32))
    for name, shape in shapes.items():
        writer.add_tensor(f"blk.0.{name}.weight", np.zeros(shape, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def ids_of_texts(rule):
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "words.gguf")
        write_model(path, rule)
        params = xllamacpp.CommonParams()
        params.model.path = path
        params.n_ctx = 64
        params.warmup = False
        server = xllamacpp.Server(params)

        def ids(text):
            body = json.dumps({"content": text, "add_special": False, "parse_special": False}).encode()
            request = urllib.request.Request(f"{server.listening_address}/tokenize", body, {"content-type": "application/json"})
            return json.load(urllib.request.urlopen(request))["tokens"]

        return [[text, ids(text)] for text in TEXTS]


if len(sys.argv) > 1:
    # A process for each rule.
    print(json.dumps(ids_of_texts(sys.argv[1])), flush=True)
    os._exit(0)

source = (Path(here).parent.parent / "src/convert/gguf/pre-tokenizers.ts").read_text()
table = source[source.index("const known:"):source.index("/** @throws UserError for a name")]
rules = sorted(set(re.findall(r'(?m)^  "?([a-z][a-z0-9._-]*)"?[:,]', table)) | set(re.findall(r'named\(.*', table) and [
    name for line in re.findall(r"named\((.*)\)", table) for name in re.findall(r'"([a-z0-9._-]+)"', line)]))


def asked(rule, tries=3):
    """llama.cpp's server at times waits for good when it starts."""
    try:
        return subprocess.run([sys.executable, __file__, rule], capture_output=True, text=True, check=True, timeout=60)
    except subprocess.TimeoutExpired:
        if tries == 1:
            raise
        return asked(rule, tries - 1)


hashes = []
for rule in rules:
    ran = asked(rule)
    ids = [
        ids
        for text, ids in json.loads(ran.stdout.splitlines()[-1])
        if not (rule in FROM_RIGHT and re.search(r"\s\s\d", text))
    ]
    digest = hashlib.sha256(json.dumps(ids, separators=(",", ":")).encode()).hexdigest()[:16]
    hashes.append([rule, digest])
encode.write_lines("gguf-rules.json", hashes)
encode.write_lines("gguf-words.json", json.loads(asked("").stdout.splitlines()[-1]))
