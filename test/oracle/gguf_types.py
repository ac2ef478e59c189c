"""What the gguf package makes of blocks of each type. The blocks are a formula, the same in src/convert/gguf/types.test.ts."""

import base64
import sys

# This folder has a gguf.py of its own.
here = sys.path.pop(0)
import gguf
import numpy as np

sys.path.insert(0, here)
import encode

TYPES = [
    "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ2_XXS", "IQ2_XS", "IQ3_XXS", "IQ1_S",
    "IQ4_NL", "IQ3_S", "IQ2_S", "IQ4_XS", "IQ1_M", "TQ1_0", "TQ2_0", "MXFP4", "NVFP4",
]

# Where blocks have numbers of 16 bits: a factor first, then a minimum.
HALVES = {"Q4_1": [0, 2], "Q5_1": [0, 2], "Q2_K": [80, 82], "Q3_K": [108], "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208],
          "TQ1_0": [52], "TQ2_0": [64], "IQ1_M": [], "MXFP4": [], "NVFP4": []}
NUMBERS = [0x2E66, 0x2A3D]


def blocks(name, count):
    kind = gguf.GGMLQuantizationType[name]
    _, size = gguf.GGML_QUANT_SIZES[kind]
    i = np.arange(count * size, dtype=np.int64)
    data = ((i * 131 + (i >> 3) * 17 + int(kind) * 29) & 255).astype(np.uint8).reshape(count, size)
    for offset, number in zip(HALVES.get(name, [0]), NUMBERS):
        data[:, offset:offset + 2] = np.array([number], "<u2").view(np.uint8)
    if name == "IQ1_M":
        # Its factor lies in the upper halves of four bytes.
        for part in range(4):
            data[:, 49 + 2 * part] = data[:, 49 + 2 * part] & 15 | (NUMBERS[0] >> 4 * part & 15) << 4
    if name == "MXFP4":
        data[:, 0] = 110 + (data[:, 0] & 15)
    if name == "NVFP4":
        data[:, :4] = 40 + (data[:, :4] & 31)
    return data


rows = []
for name in TYPES:
    kind = gguf.GGMLQuantizationType[name]
    count = 512 // gguf.GGML_QUANT_SIZES[kind][0]
    numbers = gguf.dequantize(blocks(name, count).reshape(1, -1), kind).astype(np.float32)
    assert np.isfinite(numbers).all() and numbers.size == 512, name
    rows.append([name, base64.b64encode(numbers.tobytes()).decode()])
encode.write_lines("gguf-types.json", rows)
