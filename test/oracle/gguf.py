"""What mlx-lm's GGUF export makes of test/fixtures/checkpoint: a hash of every tensor, and the metadata."""

import contextlib
import hashlib
import io
import os
import tempfile
from pathlib import Path

os.environ["MLX_DISABLE_COMPILE"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten
from mlx_lm.gguf import convert_to_gguf
from mlx_lm.utils import dequantize_model, load

import encode

SOURCE = encode.FIXTURES / "checkpoint"

def hashed(x):
    bits = {2: mx.uint16, 4: mx.uint32}[x.itemsize]
    return [str(x.dtype).split(".")[-1], list(x.shape), hashlib.sha256(np.array(x.view(bits)).tobytes()).hexdigest()[:16]]


model, _, config = load(str(SOURCE), return_config=True)
model = dequantize_model(model)
for field in ("quantization", "quantization_config"):
    config.pop(field, None)
weights = {name: x.astype(mx.float16) for name, x in tree_flatten(model.parameters())}

with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
    path = Path(folder) / "model.gguf"
    convert_to_gguf(SOURCE, weights, config, str(path))
    tensors, metadata = mx.load(str(path), return_metadata=True)
    plain = {key: value.tolist() if isinstance(value, mx.array) else value for key, value in metadata.items()}
    encode.write("gguf.json", {"tensors": {name: hashed(x) for name, x in sorted(tensors.items())}, "metadata": plain})
