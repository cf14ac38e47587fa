"""A tiny mask decoder of PaliGemma's layout with random weights, and what the reference makes of it (tests/data/masks):
64 x 64 masks by PyTorch in double, pasted by Pillow as big_vision's evaluator does, COCO's counts by pycocotools.

big_vision's decoder is Flax; the same in PyTorch's terms: Conv 1x1, ReLU, two residual blocks (3x3, 3x3, 1x1), four
ConvTranspose2d(kernel 4, stride 2, padding 1) with ReLU, Conv 1x1. `--full FILE` writes the true shapes (8 MB).
"""

import argparse
from pathlib import Path

import common
import numpy as np

FOLDER = common.DATA / "masks"
# left, top, right, bottom as location tokens, and the picture: wider, higher, smaller than 64, exactly 64, one pixel
PLACES = [
    ((100, 200, 900, 800), 333, 257),
    ((0, 0, 1023, 1023), 64, 64),
    ((0, 0, 1023, 1023), 64, 40),
    ((0, 0, 1023, 1023), 100, 20),
    ((10, 20, 60, 1000), 90, 300),
    ((500, 500, 560, 560), 120, 90),
    ((0, 512, 1023, 600), 7, 60),
    ((300, 0, 400, 1023), 200, 11),
    ((1000, 1000, 1023, 1023), 90, 90),
]


def weights(embed, channels, seed):
    rng = np.random.default_rng(seed)
    tensors = {"_vq_vae._embedding": rng.normal(0, 1, (128, embed)), "_vq_vae._ema_cluster_size": rng.random(128)}

    def layer(name, shape, transposed=False):
        fan_in = shape[0 if transposed else 1] * shape[2] * shape[3] / (4 if transposed else 1)
        tensors[name + ".weight"] = rng.normal(0, (2 / fan_in) ** 0.5, shape)
        tensors[name + ".bias"] = rng.normal(0, 0.1, shape[1 if transposed else 0])

    layer("decoder.0", (channels, embed, 1, 1))
    for block in (2, 3):
        layer(f"decoder.{block}.net.0", (channels, channels, 3, 3))
        layer(f"decoder.{block}.net.2", (channels, channels, 3, 3))
        layer(f"decoder.{block}.net.4", (channels, channels, 1, 1))
    width = channels
    for i, name in enumerate((4, 6, 8, 10)):
        out = channels >> i
        layer(f"decoder.{name}", (width, out, 4, 4), transposed=True)
        width = out
    layer("decoder.12", (1, width, 1, 1))
    return {name: value.astype(np.float32) for name, value in tensors.items()}


def decode(tensors, codes):
    """[64, 64] of 16 codes, in double."""
    import torch
    import torch.nn.functional as F

    t = {name: torch.from_numpy(value.astype(np.float64)) for name, value in tensors.items()}

    def conv(x, name, padding=0):
        return F.conv2d(x, t[name + ".weight"], t[name + ".bias"], padding=padding)

    x = t["_vq_vae._embedding"][torch.tensor(codes)].reshape(4, 4, -1).permute(2, 0, 1)[None]
    x = F.relu(conv(x, "decoder.0"))
    for block in ("decoder.2.net", "decoder.3.net"):
        y = F.relu(conv(x, block + ".0", 1))
        y = F.relu(conv(y, block + ".2", 1))
        x = x + conv(y, block + ".4")
    for name in ("decoder.4", "decoder.6", "decoder.8", "decoder.10"):
        x = F.relu(F.conv_transpose2d(x, t[name + ".weight"], t[name + ".bias"], stride=2, padding=1))
    return conv(x, "decoder.12")[0, 0].numpy().astype(np.float32)


def centred(tensors, codes):
    """Shifts the last bias so that masks are neither empty nor full."""
    middle = np.median(np.concatenate([decode(tensors, c).ravel() for c in codes]))
    tensors["decoder.12.bias"] -= np.float32(middle)


def pasted(mask64, place, width, height):
    """big_vision's evaluator: corners truncated, PIL's bilinear on float, above 0."""
    import PIL.Image

    x0, y0, x1, y1 = (token / 1023 for token in place)
    y0, x0, y1, x1 = map(int, (y0 * height, x0 * width, y1 * height, x1 * width))
    values = np.asarray(PIL.Image.fromarray(mask64).resize([x1 - x0, y1 - y0], resample=PIL.Image.BILINEAR))
    full = np.zeros((height, width), bool)
    full[y0:y1, x0:x1] = values > 0
    return full, values


def run_lengths(full):
    flat = full.ravel(order="F").astype(np.int8)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flat]))).tolist()
    ends = edges + [flat.size]
    return [ends[0]] + [b - a for a, b in zip(ends, ends[1:])]


def coco_string(full):
    from pycocotools import mask

    return mask.encode(np.asfortranarray(full.astype(np.uint8)))["counts"].decode()


def main(argv=None):
    parser = argparse.ArgumentParser()
    parser.add_argument("--full", type=Path)
    arguments = parser.parse_args(argv)
    common.setup_torch()
    rng = np.random.default_rng(5)
    if arguments.full:
        tensors = weights(512, 128, 3)
        codes = [rng.integers(0, 128, 16).tolist() for _ in range(2)]
        centred(tensors, codes)
        np.savez(arguments.full, **tensors)
        common.write_json(arguments.full.with_suffix(".json"),
                          {"codes": codes, "masks": [decode(tensors, c).ravel().tolist() for c in codes]})
        return
    tensors = weights(6, 16, 2)
    codes = [list(range(16)), [127 - 8 * i for i in range(16)], [7] * 16] + [rng.integers(0, 128, 16).tolist() for _ in range(6)]
    centred(tensors, codes)
    FOLDER.mkdir(parents=True, exist_ok=True)
    np.savez(FOLDER / "vae-oid.npz", **tensors)
    masks = [decode(tensors, c) for c in codes]
    common.write_tensors(FOLDER / "masks.golden.safetensors", {f"mask{i}": m for i, m in enumerate(masks)})
    cases = []
    for mask64, (place, width, height) in zip(masks, PLACES):
        full, values = pasted(mask64, place, width, height)
        cases.append({"place": place, "width": width, "height": height, "counts": run_lengths(full), "coco": coco_string(full),
                      "nearest_to_zero": float(np.abs(values).min())})
    common.write_json(FOLDER / "golden.json", common.header("masks") | {"codes": codes, "cases": cases})
    common.log("masks:", [round(float((m > 0).mean()), 2) for m in masks], [c["nearest_to_zero"] for c in cases])


if __name__ == "__main__":
    main()
