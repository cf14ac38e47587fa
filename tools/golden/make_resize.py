"""Writes checksums of 200 pictures of random sizes, resized by Pillow and by TensorFlow as big_vision does it
(tests/data/images/resize_sizes.golden.json).

Apart from the other generators, since it needs TensorFlow and they do not:
    python3 -m venv venv && venv/bin/pip install tensorflow-cpu pillow && venv/bin/python tools/golden/make_resize.py
The pictures are made of integers alone, so that the test makes the same ones.
"""

import json
import os
import pathlib
import zlib

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import numpy as np  # noqa: E402
import PIL  # noqa: E402
import tensorflow as tf  # noqa: E402
from PIL import Image  # noqa: E402

OUT = pathlib.Path(__file__).resolve().parents[2] / "tests/data/images/resize_sizes.golden.json"
SIDES = (224, 448, 378, 96, 33)


def picture(width, height, seed):
    """Noise, a gradient with noise, or flat blocks: uint8 [H, W, 3]."""
    y, x, c = np.meshgrid(np.arange(height), np.arange(width), np.arange(3), indexing="ij")
    h = (x * 73856093 ^ y * 19349663 ^ c * 83492791 ^ (seed + 1) * 40503) & 0xFFFFFFFF
    noise = ((h * 1103515245 + 12345) & 0xFFFFFFFF) >> 24
    if seed % 3 == 0:
        return noise.astype(np.uint8)
    if seed % 3 == 1:
        return np.minimum(x * 240 // width + y * 10 // height + noise // 32 + c, 255).astype(np.uint8)
    return ((x // 11 + y // 13) % 7 * 36 + c * 7).astype(np.uint8)


def big_vision(rgb, side, antialias):
    """big_vision/pp/ops_image.py, get_resize."""
    image = tf.constant(rgb)
    out = tf.image.resize(image, (side, side), method="bilinear", antialias=antialias)
    return tf.cast(out, image.dtype).numpy()


def pillow(rgb, side, resample):
    return np.asarray(Image.fromarray(rgb).resize((side, side), resample))


def main():
    rng = np.random.default_rng(6)
    cases = []
    for seed in range(200):
        # Odd sizes of all proportions, some much smaller than the target, some of one pixel a side.
        width, height = (int(np.exp(rng.uniform(0, np.log(900)))) for _ in range(2))
        side = SIDES[seed % len(SIDES)]
        rgb = picture(width, height, seed)
        made = {
            "bicubic": pillow(rgb, side, Image.Resampling.BICUBIC),
            "bilinear": pillow(rgb, side, Image.Resampling.BILINEAR),
            "bv": big_vision(rgb, side, False),
            "bv-aa": big_vision(rgb, side, True),
        }
        cases.append({"width": width, "height": height, "side": side, "seed": seed, "in": zlib.crc32(rgb.tobytes())}
                     | {k: zlib.crc32(v.tobytes()) for k, v in made.items()})
    head = {"pillow": PIL.__version__, "tensorflow": tf.__version__}
    lines = ",\n".join(json.dumps(case) for case in cases)
    OUT.write_text('{"versions": ' + json.dumps(head) + ',\n"cases": [\n' + lines + "\n]}\n")
    print(f"resize sizes: {len(cases)} cases")


if __name__ == "__main__":
    main()
