"""Goldens of the position-embedding resize (tests/data/posemb.golden.safetensors).

big_vision's resample_posemb is scipy.ndimage.zoom(order=1): bilinear on an align-corners grid, source coordinate
i * (n_in - 1) / (n_out - 1). The formula is the reference; scipy agrees with it but for its last row and column at
some sizes (16 -> 30 is one), where it writes zeros: not to be copied.
"""

import common
import numpy as np
import scipy.ndimage

# name, input grid, output grid, whether scipy agrees, output rows kept (None: all)
CASES = [
    ("2x2_3x3", (2, 2), (3, 3), True, None),
    ("3x3_2x2", (3, 3), (2, 2), True, None),
    ("3x3_3x3", (3, 3), (3, 3), True, None),
    ("1x1_4x4", (1, 1), (4, 4), True, None),
    ("3x3_4x6", (3, 3), (4, 6), True, None),
    ("5x5_7x3", (5, 5), (7, 3), True, None),
    ("16x16_58x58", (16, 16), (58, 58), True, [0, 1, 28, 29, 56, 57]),
    ("16x16_76x76", (16, 16), (76, 76), True, [0, 37, 75]),
    ("16x16_30x30", (16, 16), (30, 30), False, None),
]
WIDTH = 3


def axis(n_in, n_out):
    at = np.arange(n_out) * ((n_in - 1) / (n_out - 1) if n_out > 1 else 0.0)
    low = np.minimum(np.floor(at).astype(int), n_in - 1)
    high = np.minimum(low + 1, n_in - 1)
    return low, high, at - low


def resample(grid, shape):
    """grid [h, w, D] -> [H, W, D], in double."""
    y0, y1, fy = axis(grid.shape[0], shape[0])
    x0, x1, fx = axis(grid.shape[1], shape[1])
    rows = grid[y0] * (1 - fy)[:, None, None] + grid[y1] * fy[:, None, None]
    return rows[:, x0] * (1 - fx)[None, :, None] + rows[:, x1] * fx[None, :, None]


def main():
    rng = np.random.default_rng(5)
    tensors, worst = {}, 0.0
    rows_kept = {}
    for name, small, large, agrees, keep in CASES:
        grid = rng.normal(size=(*small, WIDTH)).astype(np.float32)
        out = resample(grid.astype(np.float64), large)
        zoom = scipy.ndimage.zoom(grid.astype(np.float64), (large[0] / small[0], large[1] / small[1], 1), order=1)
        diff = np.abs(zoom - out).max()
        if agrees:
            assert diff < 1e-12, (name, diff)
            worst = max(worst, diff)
        else:
            inner = np.abs(zoom - out)[:-1, :-1].max()
            assert inner < 1e-12, (name, inner)
            common.log(f"posemb {name}: scipy differs by {diff:.3f} in the last row and column, {inner:.1e} elsewhere")
        tensors[f"{name}/in"] = grid
        tensors[f"{name}/out"] = (out if keep is None else out[keep]).astype(np.float32)
        rows_kept[name] = keep if keep is not None else list(range(large[0]))
    common.write_tensors(common.DATA / "posemb.golden.safetensors", tensors)
    common.write_json(
        common.DATA / "posemb.golden.json",
        common.header("posemb") | {
            "cases": [
                {"name": n, "in": list(i), "out": list(o), "rows": rows_kept[n]} for n, i, o, _, _ in CASES
            ]
        },
    )
    common.log(f"posemb: {len(CASES)} cases, formula and scipy within {worst:.1e}")


if __name__ == "__main__":
    main()
