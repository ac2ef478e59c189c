"""Muse Spark's images: what its tower makes of them, logits of a prompt with images, and the sizes and pixels that its
processor and Pillow give."""

import base64
import hashlib
import io

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten
from mlx_lm.generate import generate_step
from mlx_lm.models import muse_spark
from mlx_lm.processors.muse_spark import Processor, _find_resize_target
from PIL import Image, ImageOps

import encode
from architectures import CONFIGS, checkpoint
from models import widen_gather_mm
from unfused import made_for, unfuse_muse_spark
from weights import uniform, weight

SALT = 1000
PATCH = 250
VISION = {
    "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 4, "num_attention_heads": 2, "patch_size": 4,
    "pos_emb_height": 4, "pos_emb_width": 4, "rope_parameters": {"rope_theta": 100.0},
}
# Grids of patches, rows by columns: in one tile, in several of different shapes, a strip, and the table's own.
GRIDS = [(2, 4), (6, 10), (12, 2), (4, 4)]
SIZES = [(640, 480), (1, 1), (7, 3000), (5000, 3), (28, 28), (29, 27), (4000, 6000), (100, 1), (4096, 784), (13, 13)]
RESIZED = [((83, 61), (56, 28)), ((83, 61), (112, 140)), ((5, 300), (28, 28)), ((40, 40), (40, 17)), ((9, 9), (9, 9)), ((3, 1), (28, 56))]


def build(config, dtype):
    made_for(dtype)
    model = muse_spark.Model(muse_spark.ModelArgs.from_dict(config))
    shapes = {}
    for name, x in tree_flatten(model.parameters()):
        if "vision_tower" in name and "qkv_proj" in name:
            shape = [x.shape[0] // 3, *x.shape[1:]]
            shapes |= {name.replace("qkv_proj", f"{part}_proj"): shape for part in "qkv"}
        elif "vision" in name:
            shapes[name] = list(x.shape)
        else:
            shapes |= checkpoint("muse_spark", [(name, x)])
    weights = {name: mx.array(weight(name, shape, SALT)) for name, shape in shapes.items()}
    model.load_weights(list(model.sanitize(weights).items()))
    model.set_dtype(dtype)
    mx.eval(model.parameters())
    return model, shapes


def pixels(index, rows, columns):
    shape = (3, rows * VISION["patch_size"], columns * VISION["patch_size"])
    return mx.array(uniform(f"image {index}", int(np.prod(shape))).reshape(shape))


def tokens_of(images):
    """Each image in the middle of some text."""
    tokens = [7, 201]
    for rows, columns in images:
        tokens += [42, *[PATCH] * (rows * columns // 4), 99]
    return [*tokens, 13, 128, 64]


def run(config, dtype):
    model, shapes = build(config, dtype)
    images = [pixels(i, *grid) for i, grid in enumerate(GRIDS)]
    prompt = mx.array(tokens_of(GRIDS))
    embedded = model.embed_inputs(prompt, pixel_values=images)
    logits = model(prompt[None], input_embeddings=embedded[None])[0, -1]
    return shapes, {"features": encode.float32(model.encode_image(images)), "logits": encode.float32(logits)}


def bytes_of(index, size):
    width, height = size
    values = uniform(f"picture {index}", width * height * 3).astype(np.float64)
    return np.floor((values + 1) * 128).astype(np.uint8).reshape(height, width, 3)


def resized(index, size, to):
    image = Image.fromarray(bytes_of(index, size)).resize(to, resample=Image.Resampling.LANCZOS)
    return {"from": size, "to": to, "hash": hashlib.sha256(np.asarray(image).tobytes()).hexdigest()[:16]}


def targets():
    for width, height in SIZES:
        (h, w), (rows, columns) = _find_resize_target(height, width, patch_h=28, patch_w=28, min_tokens=1, max_tokens=4096)
        yield {"from": [width, height], "to": [w, h], "tokens": rows * columns}


def picture():
    """Soft slopes with some noise, as decoders of JPEG have to be asked with."""
    y, x = np.mgrid[0:21, 0:30]
    slopes = np.stack([x * 8, y * 11 + x, (x - 12) ** 2 + (y - 9) ** 2], axis=-1)
    noise = np.floor((uniform("noise", slopes.size).astype(np.float64) + 1) * 12).reshape(slopes.shape)
    return Image.fromarray(((slopes + noise) % 256).astype(np.uint8))


def encoded(image, **options):
    file = io.BytesIO()
    image.save(file, **options)
    return file.getvalue()


def files():
    """One picture in many formats, and the bytes of its colours as Pillow decodes them."""
    image = picture()
    seen = Image.fromarray((np.arange(21 * 30) % 256).astype(np.uint8).reshape(21, 30))
    transparent = image.copy()
    transparent.putalpha(seen)
    turned = Image.Exif()
    turned[274] = 6
    made = {
        "PNG": encoded(image, format="PNG"), "PNG in grey": encoded(image.convert("L"), format="PNG"),
        "PNG with a palette": encoded(image.quantize(32), format="PNG"), "PNG with transparency": encoded(transparent, format="PNG"),
        "PNG in grey with transparency": encoded(transparent.convert("LA"), format="PNG"),
        "PNG of black and white": encoded(image.convert("1"), format="PNG"),
        "JPEG": encoded(image, format="JPEG", quality=90), "JPEG with coarse colours": encoded(image, format="JPEG", subsampling=2),
        "JPEG in passes": encoded(image, format="JPEG", progressive=True), "JPEG in grey": encoded(image.convert("L"), format="JPEG"),
        "JPEG in inks": encoded(image.convert("CMYK"), format="JPEG"), "WebP": encoded(image, format="WEBP", quality=80),
        "WebP without loss": encoded(image, format="WEBP", lossless=True), "GIF": encoded(image.quantize(32), format="GIF"),
        "BMP": encoded(image, format="BMP"),
    }
    def row(data, colours):
        hash = hashlib.sha256(np.asarray(colours).tobytes()).hexdigest()[:16]
        return {"file": base64.b64encode(data).decode(), "size": list(colours.size), "hash": hash}

    rows = {name: row(data, Image.open(io.BytesIO(data)).convert("RGB")) for name, data in made.items()}
    # A camera that was held upright: transformers turns such pictures, and so do we.
    lying = encoded(image, format="JPEG", exif=turned)
    rows["JPEG that is turned"] = row(lying, ImageOps.exif_transpose(Image.open(io.BytesIO(lying))).convert("RGB"))
    return rows


def answer(config, pictures):
    """Greedy tokens behind a prompt of words "w<id>" with two pictures."""
    model, _ = build(config, mx.float32)
    images = [np.asarray(Image.open(io.BytesIO(base64.b64decode(one["file"]))).convert("RGB")) for one in pictures]
    asked = "w7 <|patch|> w42 <|patch|> w13 w99"
    text, pixel_values = Processor.from_config(config)(asked, images=images)
    special = {"<|image_start|>": 248, "<|patch|>": PATCH, "<|image_end|>": 249}
    words = text.replace("<|", " <|").replace("|>", "|> ").split()
    prompt = mx.array([special[word] if word in special else int(word[1:]) for word in words])
    embedded = model.embed_inputs(prompt, pixel_values=pixel_values)
    steps = generate_step(prompt, model, max_tokens=12, input_embeddings=embedded)
    return {"asked": asked, "tokens": [token for token, _ in steps]}


if __name__ == "__main__":
    unfuse_muse_spark()
    widen_gather_mm()
    runs = []
    for ij in (False, True):
        vision = {**VISION, "use_ij_pos_encoding": ij}
        config = {**CONFIGS["muse_spark"], "vision_config": vision, "image_token_id": PATCH, "projector_hidden_size": 96}
        shapes, wide = run(config, mx.float32)
        _, narrow = run(config, mx.bfloat16)
        runs.append({"config": config, "weights": shapes, "float32": wide, "bfloat16": narrow})
    values, count = Processor(patch_size=4).preprocess_image(bytes_of("whole", (30, 21)))
    pictures = files()
    data = {
        "pictures": pictures, "answer": answer(runs[0]["config"], [pictures["PNG"], pictures["JPEG"]]),
        "salt": SALT, "grids": GRIDS, "prompt": tokens_of(GRIDS), "runs": runs,
        "resized": [resized(i, *sizes) for i, sizes in enumerate(RESIZED)], "targets": list(targets()),
        "whole": {"size": [30, 21], "tokens": count, "shape": list(values.shape), "values": encode.float32(values)},
    }
    encode.write("vision.json", data)
