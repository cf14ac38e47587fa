"""Training scenes without end: pieces drawn once (bank.npz), put together anew for every batch.

Drawing a scene as scenes.py does takes 7 ms; most of it goes into turning and shrinking pictures. Here every thing
is drawn in some sizes and turns, words are masks, backgrounds are pictures, and a scene is made of them in 0.4 ms: it
costs the training nothing, and no scene comes twice. Pieces are drawn with a side of 224, as the test scenes are, and
shrunk to 112 (--side 112) or kept (--side 224), with the photographs, fonts and colours of training only.

  bank.py --out bank.npz                    5 minutes on one core
  bank.py --out bank224.npz --side 224      for the stage at 224 px
"""

import argparse
import time
from pathlib import Path

import numpy as np
from PIL import Image

import catalog
import scenes

SIDE = 112
DRAWN = 224  # of the pieces before they are shrunk, and of all places in the tables


def shrunk(image, rng, side):
    """The picture at half its size, where it began at a random even or odd place, and that place (y, x); at DRAWN as it is."""
    if side == DRAWN:
        return np.asarray(image), 0, 0
    oy, ox = (int(v) for v in rng.integers(0, 2, 2))
    w, h = image.size
    big = Image.new(image.mode, ((w + ox + 1) // 2 * 2, (h + oy + 1) // 2 * 2))
    big.paste(image, (ox, oy))
    return np.asarray(big.resize((big.size[0] // 2, big.size[1] // 2), Image.BICUBIC)), oy, ox


def draw_sprites(rng, each, side):
    """(pixels, table): table rows are thing, first byte, height, width, then oy, ox, h, w in 1/224 of the side."""
    pixels, table, at = [], [], 0
    for thing in range(len(catalog.things())):
        for n in range(each):
            count = (1, 2, 3, 4)[n % 4]
            picture = scenes.turned(rng, thing, DRAWN, rng.uniform(*scenes.SIZES[count]))
            w, h = picture.size
            if max(w, h) > DRAWN - 2:
                continue
            small, oy, ox = shrunk(picture, rng, side)
            table.append((thing, at, *small.shape[:2], oy, ox, h, w))
            pixels.append(small.ravel())
            at += small.size
    return np.concatenate(pixels), np.array(table)


def draw_words(rng, number, side):
    """(masks, table, words, centres of letters): table rows as of draw_sprites, with `alone` for the thing."""
    pixels, table, words, letters, at = [], [], [], [], 0
    while len(table) < number:
        word, alone = scenes.spelled(rng), rng.random() < 0.4
        path = catalog.TRAIN_FONTS[int(rng.integers(len(catalog.TRAIN_FONTS)))]
        width = rng.uniform(min(0.9, 0.10 * len(word) + 0.05), 0.95) * DRAWN
        size = min(width / catalog.font(path, 100).getlength(word) * 100, (0.34 if alone else 0.24) * DRAWN / 0.75)
        font = catalog.font(path, max(16, int(size)))
        x0, y0, x1, y1 = font.getbbox(word)
        w, h = x1 - x0, y1 - y0
        if w > DRAWN - 6 or h > 0.4 * DRAWN:
            continue
        mask = Image.new("L", (w, h))
        scenes.ImageDraw.Draw(mask).text((-x0, -y0), word, font=font, fill=255)
        small, oy, ox = shrunk(mask, rng, side)
        middle = [(font.getlength(word[:i]) + font.getlength(word[:i + 1])) / 2 - x0 for i in range(len(word))]
        table.append((int(alone), at, *small.shape, oy, ox, h, w))
        pixels.append(small.ravel())
        words.append(word)
        letters.append(middle + [0.0] * (10 - len(middle)))
        at += small.size
    return np.concatenate(pixels), np.array(table), np.array(words), np.array(letters, np.float32)


def draw_backgrounds(rng, number, side):
    """(pictures, number of the colour or -1)."""
    pictures, colours, names = np.empty((number, side, side, 3), np.uint8), [], list(catalog.COLOURS)
    for n in range(number):
        image, colour = scenes.background(rng, side, False)
        pictures[n] = np.asarray(image.convert("RGB"))
        colours.append(names.index(colour) if colour else -1)
    return pictures, np.array(colours)


class Bank:
    """Makes scenes of the pieces in a file."""

    def __init__(self, path, garments=0.08):
        self.garments = garments
        with np.load(path, allow_pickle=False) as f:
            (self.pixels, self.table, self.masks, self.words, self.spelled, self.letters, self.pictures,
             self.colours) = (f[k] for k in ("pixels", "table", "masks", "words", "spelled", "letters", "pictures", "colours"))
        self.side = self.pictures.shape[1]
        self.unit = DRAWN // self.side  # of the tables' places in a pixel
        longest = self.table[:, 6:8].max(1) / DRAWN
        self.fitting = {}  # (thing, how many there are) -> rows of the table
        for count, (low, high) in scenes.SIZES.items():
            rows = np.flatnonzero((longest >= low * 0.8) & (longest <= high * 1.1))
            order = rows[np.argsort(self.table[rows, 0], kind="stable")]
            ends = np.searchsorted(self.table[order, 0], np.arange(len(catalog.things()) + 1))
            for thing in range(len(catalog.things())):
                self.fitting[thing, count] = order[ends[thing]:ends[thing + 1]]
        self.alone = [np.flatnonzero(self.words[:, 0] == v) for v in (0, 1)]
        shares = scenes.COUNTS
        self.counts, self.shares = list(shares), np.array(list(shares.values())) / sum(shares.values())

    def ink(self, rng, below, mask):
        """Writes with a colour that stands out."""
        light = scenes.luminance(below.reshape(-1, 3).mean(0))
        for _ in range(20):
            ink = catalog.any_colour(rng, False)
            if abs(scenes.luminance(ink) - light) > 0.4:
                break
        else:
            ink = np.array([0, 0, 0] if light > 0.5 else [255, 255, 255])
        mask = mask[:below.shape[0], :below.shape[1], None].astype(np.float32) / 255
        below[:] = below + (ink - below) * mask + 0.5

    def write(self, rng, image, alone, draw):
        """Writes a word; returns (word, box, letters)."""
        row = int(rng.choice(self.alone[int(alone)]))
        _, at, h, w, oy, ox, high, wide = (int(v) for v in self.words[row])
        x = int(rng.integers(1, max(2, self.side - w)))
        if alone:
            y = int(rng.integers(1, max(2, self.side - h)))
        else:
            room = max(1, int(0.3 * self.side) - h)
            y = int(rng.integers(1, room + 1)) if rng.random() < 0.5 else self.side - h - int(rng.integers(0, room))
        if draw:
            self.ink(rng, image[y:y + h, x:x + w], self.masks[at:at + h * w].reshape(h, w))
        word = str(self.spelled[row])
        y, x = self.unit * y + oy, self.unit * x + ox
        box = [y / DRAWN, x / DRAWN, (y + high) / DRAWN, (x + wide) / DRAWN]
        return word, box, [[(x + float(c)) / DRAWN, letter] for c, letter in zip(self.letters[row], word)]

    def scene(self, rng, counts=None, word_share=0.25, draw=True):
        """(pixels uint8 [side, side, 3], description as of scenes.make); without `draw` no pixels, only what would be there."""
        if counts is None and rng.random() < self.garments:
            image, description = scenes.garment(rng, int(rng.integers(len(catalog.garments(False)[1]))), False)
            return np.asarray(scenes.shrink(image, self.side)), description
        number = int(rng.integers(len(self.pictures)))
        image = self.pictures[number]
        image = (image[:, ::-1] if rng.random() < 0.5 else image).copy() if draw else image
        count = int(counts[int(rng.integers(len(counts)))]) if counts else int(rng.choice(self.counts, p=self.shares))
        word = box = letters = None
        if count == 0 or rng.random() < word_share:
            word, box, letters = self.write(rng, image, count == 0, draw)
        objects = []
        for thing in rng.choice(len(catalog.things()), count, replace=False) if count else ():
            rows = self.fitting[int(thing), count]
            for attempt in range(12):
                row = int(rows[int(rng.integers(len(rows)))])
                _, at, h, w, oy, ox, high, wide = (int(v) for v in self.table[row])
                y, x = int(rng.integers(0, self.side - h + 1)), int(rng.integers(0, self.side - w + 1))
                top, left = self.unit * y + oy, self.unit * x + ox
                new = [top / DRAWN, left / DRAWN, (top + high) / DRAWN, (left + wide) / DRAWN]
                middle = (new[1] + new[3]) / 2
                if box and scenes.overlap(new, box) > 0 or any(
                        scenes.overlap(new, o[1:]) > 0.08 or abs((o[2] + o[4]) / 2 - middle) < scenes.MIN_DX for o in objects):
                    continue
                if draw:
                    sprite = self.pixels[at:at + h * w * 4].reshape(h, w, 4)
                    below, alpha = image[y:y + h, x:x + w], sprite[..., 3:].astype(np.float32) / 255
                    below[:] = below + (sprite[..., :3].astype(np.float32) - below) * alpha + 0.5
                objects.append([int(thing), *new])
                break
        if not objects and word is None:
            return self.scene(rng, counts, word_share, draw)
        objects.sort(key=lambda o: o[2] + o[4])
        if draw and rng.random() < 0.5:
            image = np.asarray(scenes.degrade(rng, Image.fromarray(image)).convert("RGB"))
        colour = int(self.colours[number])
        return image, {"objects": objects, "word": word, "word_box": box, "letters": letters, "garment": None,
                       "colour": list(catalog.COLOURS)[colour] if colour >= 0 else None}

    def sample(self, rng, count, single, dense=0.0, words=0.25):
        """count scenes; shares of those that are one thing and nothing else, of those with three or four things, and of
        the others with a word."""
        made = []
        for n in range(count):
            if n < single * count:
                made.append(self.scene(rng, [1], 0.0))
            else:
                made.append(self.scene(rng, [3, 4] if n < (single + dense) * count else None, words))
        return np.stack([pixels for pixels, _ in made]), [description for _, description in made]

    def told(self, rng, count, words):
        """Descriptions only, of fuller scenes."""
        return [self.scene(rng, None if rng.random() < 0.2 else [1, 2, 3, 4], words, draw=False)[1] for _ in range(count)]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--side", type=int, choices=(SIDE, DRAWN), default=SIDE, help="of the scenes in pixels")
    parser.add_argument("--each", type=int, default=48, help="pictures of every thing")
    parser.add_argument("--words", type=int, default=24000)
    parser.add_argument("--backgrounds", type=int, default=6000)
    parser.add_argument("--seed", type=int, default=scenes.TRAIN_SEEDS)
    args = parser.parse_args()
    rng, start = np.random.default_rng(args.seed), time.time()
    pixels, table = draw_sprites(rng, args.each, args.side)
    print(f"{len(table)} pictures of things, {time.time() - start:.0f} s", flush=True)
    masks, words, spelled, letters = draw_words(rng, args.words, args.side)
    print(f"{len(words)} words, {time.time() - start:.0f} s", flush=True)
    pictures, colours = draw_backgrounds(rng, args.backgrounds, args.side)
    part = args.out.with_name(args.out.name + ".part")
    with open(part, "wb") as f:
        np.savez(f, pixels=pixels, table=table, masks=masks, words=words, spelled=spelled, letters=letters,
                 pictures=pictures, colours=colours)
    part.rename(args.out)
    print(f"{len(pictures)} backgrounds, {time.time() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main()
