"""Scenes at 112 and at 224 px hold what their descriptions say, and positions are resized as the engine does it. Run it as a script."""

import tempfile
from pathlib import Path

import numpy as np
import torch

import bank
import model as pali
from batches import shown


def pieces(folder, side):
    """A small bank of that side whose backgrounds are black."""
    rng = np.random.default_rng(1)
    pixels, table = bank.draw_sprites(rng, 4, side)
    masks, words, spelled, letters = bank.draw_words(rng, 20, side)
    np.savez(folder / "bank.npz", pixels=pixels, table=table, masks=masks, words=words, spelled=spelled, letters=letters,
             pictures=np.zeros((2, side, side, 3), np.uint8), colours=np.full(2, -1))
    return bank.Bank(folder / "bank.npz", garments=0)


def seen(image, side):
    """The box (ymin, xmin, ymax, xmax), 0..1, of what is not black."""
    inked = image.max(-1) > 40
    return [v / side for rows in (inked.any(1), inked.any(0)) for v in (np.flatnonzero(rows)[0], np.flatnonzero(rows)[-1] + 1)]


def check_side(folder, side):
    made, rng, off, sizes = pieces(folder, side), np.random.default_rng(2), [], []
    for counts, share in [([1], 0.0), ([0], 1.0)] * 40:
        image, scene = made.scene(rng, counts, share)
        assert image.shape == (side, side, 3)
        y0, y1, x0, x1 = seen(image, side)
        box = scene["objects"][0][1:] if scene["objects"] else scene["word_box"]
        off.append(np.abs(np.array([y0, x0, y1, x1]) - box).max() * side)
        sizes.append(max(box[2] - box[0], box[3] - box[1]))
    assert np.median(off) <= 2, f"{side}: boxes are {np.median(off):.1f} pixels off"
    truth = shown([scene], side)
    assert truth["labels"].shape == (1, (side // 14) ** 2)
    print(f"{side}: boxes within {np.median(off):.1f} pixels, things and words of {np.mean(sizes):.2f} of the side")


def check_positions():
    table = torch.randn(64, 8)
    assert torch.allclose(pali.resized(table, 8), table, atol=1e-6)
    wide = pali.resized(table, 16).view(16, 16, 8)
    at = 5 * 7 / 15  # the sixth of 16 over the 8 there were: corners on corners
    low, part = int(at), at - int(at)
    assert torch.allclose(wide[0, 5], table[low] * (1 - part) + table[low + 1] * part, atol=1e-6)
    assert torch.allclose(wide[-1, -1], table[-1], atol=1e-6) and torch.allclose(wide[-1, 0], table[56], atol=1e-6)


def main():
    check_positions()
    for side in (bank.SIDE, bank.DRAWN):
        with tempfile.TemporaryDirectory() as folder:
            check_side(Path(folder), side)


if __name__ == "__main__":
    main()
