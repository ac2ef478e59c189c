"""What llama.cpp makes of the files of test/gguf-models.ts, which Bun writes ($BUN): tokens and the first logits."""

import base64
import json
import os
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path

# This folder has a gguf.py of its own.
here = sys.path.pop(0)
import numpy as np
import xllamacpp

ROOT = Path(here).parent.parent


def answer(path, prompt, steps):
    """
    What llama.cpp generates, which is never the end of a text, what is likeliest of all at each step, and the
    log-probabilities at the first. Everything in float32.
    """
    params = xllamacpp.CommonParams()
    params.model.path = path
    params.n_ctx = 256
    params.n_parallel = 1
    params.cpuparams.n_threads = 1
    params.warmup = False
    params.fit_params = False
    params.cache_type_k = xllamacpp.ggml_type.GGML_TYPE_F32
    params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    # Of MiniMax M3 it leaves the choice of blocks out where flash attention is off, and keys are float16 where it is on.
    on = "minimax_m3" in path
    flash = xllamacpp.llama_flash_attn_type
    params.flash_attn_type = flash.LLAMA_FLASH_ATTN_TYPE_ENABLED if on else flash.LLAMA_FLASH_ATTN_TYPE_DISABLED
    server = xllamacpp.Server(params)
    body = {"prompt": prompt, "n_predict": steps, "temperature": 0, "samplers": ["temperature"], "n_probs": 4096,
            "return_tokens": True, "cache_prompt": False, "ignore_eos": True}
    headers = {"content-type": "application/json"}
    request = urllib.request.Request(f"{server.listening_address}/completion", json.dumps(body).encode(), headers)
    answered = json.load(urllib.request.urlopen(request))
    steps = [{entry["id"]: entry["logprob"] for entry in step["top_logprobs"]} for step in answered["completion_probabilities"]]
    likeliest = [max(step, key=step.get) for step in steps]
    return answered["tokens"], likeliest, [steps[0][i] for i in range(len(steps[0]))]


if len(sys.argv) > 1:
    # A process for each model: llama.cpp aborts where something is wrong.
    print(json.dumps(answer(sys.argv[1], json.loads(sys.argv[2]), int(sys.argv[3]))), flush=True)
    os._exit(0)

sys.path.insert(0, here)
import encode

with tempfile.TemporaryDirectory() as folder:
    subprocess.run([os.environ.get("BUN", "bun"), "test/gguf-models.ts", folder], cwd=ROOT, check=True)
    cases = json.loads((Path(folder) / "cases.json").read_text())
    rows = []
    for name, fingerprint in cases["files"].items():
        command = [sys.executable, __file__, f"{folder}/{name}.gguf", json.dumps(cases["prompt"]), str(cases["steps"])]
        ran = subprocess.run(command, capture_output=True, text=True, timeout=120)
        if ran.returncode != 0:
            sys.exit(f"llama.cpp does not take {name}:\n{ran.stderr[-2000:]}")
        tokens, likeliest, first = json.loads(ran.stdout.splitlines()[-1])
        last = base64.b64encode(np.array(first, np.float32).tobytes()).decode()
        rows.append([name, {"file": fingerprint, "tokens": tokens, "likeliest": likeliest, "last": last}])
    encode.write_lines("gguf-models.json", rows)
