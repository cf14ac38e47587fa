"""Draws the losses of stages, a panel each, from their losses.csv: plot.py --out losses.png W/v2 W/l5 W/m3"""

import argparse
import math
from pathlib import Path

from PIL import Image, ImageDraw

import catalog
import records

WIDE, HIGH, LEFT, TOP, COLUMNS = 360, 240, 44, 26, 3
COLOURS = [(0, 114, 178), (213, 94, 0), (0, 158, 115), (204, 121, 167), (86, 180, 233), (230, 159, 0)]  # Okabe and Ito


def read(path):
    """{loss: [(step, value)]} of a losses.csv."""
    out = {}
    for _, step, _, _, name, value in records.rows(path):
        out.setdefault(name, []).append((int(step), float(value)))
    return out


def panel(title, losses):
    image = Image.new("RGB", (WIDE, HIGH), "white")
    pen, font = ImageDraw.Draw(image), catalog.font("dejavu/DejaVuSans.ttf", 11)
    last = max(step for line in losses.values() for step, _ in line)
    values = [v for line in losses.values() for _, v in line if v > 0]
    low, high = (math.log10(f(values)) for f in (min, max))
    high = max(high, low + 0.1)

    def at(step, value):
        return (LEFT + step / last * (WIDE - LEFT - 90),
                TOP + (high - math.log10(max(value, 1e-9))) / (high - low) * (HIGH - TOP - 24))

    pen.text((LEFT, 6), f"{title}, {last} steps", font=font, fill=(0, 0, 0))
    for mark in (k * 10 ** e for e in (-2, -1, 0, 1) for k in (1, 2, 5)):
        if low <= math.log10(mark) <= high:
            y = at(0, mark)[1]
            pen.line([(LEFT, y), (WIDE - 90, y)], fill=(225, 225, 225))
            pen.text((6, y - 6), f"{mark:g}", font=font, fill=(90, 90, 90))
    for number, (name, line) in enumerate(losses.items()):
        colour = COLOURS[number % len(COLOURS)]
        pen.line([at(*p) for p in line], fill=colour, width=2)
        pen.text((WIDE - 84, TOP + 16 * number), f"{name} {line[-1][1]:.2f}", font=font, fill=colour)
    return image


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("stages", type=Path, nargs="+", help="folders of stages")
    args = parser.parse_args()
    rows = -(-len(args.stages) // COLUMNS)
    page = Image.new("RGB", (WIDE * min(COLUMNS, len(args.stages)), HIGH * rows), "white")
    for n, stage in enumerate(args.stages):
        page.paste(panel(stage.name, read(stage / "losses.csv")), (n % COLUMNS * WIDE, n // COLUMNS * HIGH))
    page.quantize(32, dither=0).save(args.out, optimize=True)


if __name__ == "__main__":
    main()
