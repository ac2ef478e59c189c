"""How far the fixtures' logits are from transformers', for models that it has: `python truth.py NAME …`.

Needs PyTorch beside transformers. Writes nothing: a fixture of a model that transformers computes otherwise is another model's.
"""

import base64
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText

from weights import weight

FIXTURES = Path(__file__).parent.parent / "fixtures/models"


def floats(text):
    return np.frombuffer(base64.b64decode(text), dtype=np.float32)


def load(fixture, folder):
    tensors = {name: weight(name, tuple(shape), fixture["salt"]) for name, shape in fixture["weights"].items()}
    kinds = {name: np.int64 if name.endswith("tid2eid") else np.float32 for name in tensors}
    save_file({name: np.ascontiguousarray(x, kinds[name]) for name, x in tensors.items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(fixture["config"]))
    kind = AutoModelForImageTextToText if "text_config" in fixture["config"] else AutoModelForCausalLM
    config = AutoConfig.from_pretrained(folder)
    for part in (config, getattr(config, "text_config", config)):
        part.pad_token_id = None
    model, report = kind.from_pretrained(
        folder, config=config, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
    )
    return model.eval(), report


for name in sys.argv[1:]:
    fixture = json.loads((FIXTURES / f"{name}.json").read_text())
    with tempfile.TemporaryDirectory() as folder:
        model, report = load(fixture, Path(folder))
    with torch.no_grad():
        logits = model(torch.tensor([fixture["prompt"]])).logits[0].float().numpy()
    ours = floats(fixture["prefill"]["logits"]).reshape(len(fixture["prompt"]), -1)
    off = np.abs(logits[:, :: fixture["columns"]] - ours).max()
    last = np.abs(logits[-1] - floats(fixture["prefill"]["last"])).max()
    print(f"{name}: {max(off, last):.1e} off at most; missing {sorted(report['missing_keys'])[:4]}, "
          f"not read {sorted(report['unexpected_keys'])[:4]}")
