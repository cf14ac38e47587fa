"""What can be in a scene: things (picture and name), garments, words, fonts, photographs, colours.

Pictures come from Noto Color Emoji (SIL OFL 1.1), names and words from Unicode CLDR (Unicode licence),
garments from Fashion-MNIST (MIT), backgrounds from free wallpapers (CC BY, CC BY-SA, CC0), letters from
fonts that may be used in pictures freely. Nothing is downloaded: the files are Debian's packages, which
requirements.txt lists.
"""

import csv
import functools
import gzip
import os
import re
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

HERE = Path(__file__).resolve().parent
FONT_ROOT = Path(os.environ.get("PALI_FONTS", "/usr/share/fonts/truetype"))
CLDR_ROOT = Path(os.environ.get("PALI_CLDR", "/usr/share/unicode/cldr/common"))
EMOJI_FONT = FONT_ROOT / "noto" / "NotoColorEmoji.ttf"
EMOJI_STRIKE = 109  # the only bitmap size of the font

TRAIN_FONTS = [
    "dejavu/DejaVuSans.ttf", "dejavu/DejaVuSans-Bold.ttf", "dejavu/DejaVuSansCondensed-Bold.ttf",
    "dejavu/DejaVuSerif.ttf", "dejavu/DejaVuSerif-Bold.ttf", "dejavu/DejaVuSansMono.ttf",
    "liberation/LiberationSans-Regular.ttf", "liberation/LiberationSans-Bold.ttf",
    "liberation/LiberationSerif-Bold.ttf", "liberation/LiberationMono-Bold.ttf",
    "lato/Lato-Regular.ttf", "lato/Lato-Bold.ttf", "lato/Lato-Black.ttf",
]
# Photographs under the things; tests use others than training.
PHOTO_ROOT = Path(os.environ.get("PALI_PHOTOS", "/usr/share/backgrounds"))
TRAIN_PHOTOS = [
    "Bridge_by_Sander_Klootwijk.jpg", "Dragonfly_by_Bolly.jpg", "Picture_0B_by_freespace.jpg",
    "Wine_by_Jakkub_Mede.jpg", "aitzgorri_by_Aitzol_Berasategi.jpg", "analogpattern_by_Peter_Nerlich.jpg",
    "free_by_Peter_Nerlich.jpg", "life_by_Aitzol_Berasategi.jpg",
    "picosdeeuropa_by_Aitzol_Berasategi.jpg", "seeding_by_Clements_Engelhardt.jpg",
    "umang_by_Abhishek_Mudgal.jpg", "Fossa_by_Jasper_Roks.jpg", "Kleiber_by_Lukas_Baubkus.jpg",
    "Painting-Colors_by__herobrine7gamer.jpg", "city.png", "desert.png", "rhythm.jpg",
]
TEST_PHOTOS = [
    "Picture_1A_by_freespace.jpg", "greentock_by_Peter_Nerlich.jpg", "sunset_by_Aitzol_Berasategi.jpg",
    "Infinite-Sea_by_Aury88.jpg", "calla.png", "string.jpg",
]

GARMENT_ROOT = Path(os.environ.get("PALI_GARMENTS", "/usr/share/datasets/fashion-mnist"))
GARMENTS = ["t-shirt", "trousers", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot"]

TEST_FONTS = [
    "open-sans/OpenSans-Regular.ttf", "open-sans/OpenSans-Semibold.ttf", "open-sans/OpenSans-Bold.ttf",
    "dejavu/DejaVuSansMono-Bold.ttf", "liberation/LiberationSerif-Regular.ttf",
]

# Name: ranges of hue (degrees), saturation and value, with gaps between the names.
COLOURS = {
    "red": ((-8, 8), (0.75, 1.0), (0.65, 0.95)),
    "orange": ((24, 36), (0.8, 1.0), (0.9, 1.0)),
    "yellow": ((50, 62), (0.6, 1.0), (0.9, 1.0)),
    "green": ((95, 150), (0.5, 1.0), (0.4, 0.8)),
    "blue": ((205, 240), (0.55, 1.0), (0.5, 1.0)),
    "purple": ((268, 292), (0.5, 1.0), (0.45, 0.8)),
    "pink": ((320, 345), (0.25, 0.5), (0.95, 1.0)),
    "brown": ((18, 30), (0.6, 0.85), (0.3, 0.5)),
    "white": ((0, 360), (0.0, 0.04), (0.95, 1.0)),
    "gray": ((0, 360), (0.0, 0.06), (0.4, 0.65)),
    "black": ((0, 360), (0.0, 0.3), (0.0, 0.1)),
}


@functools.lru_cache(maxsize=None)
def things():
    """List of (codepoint string, English name, article or '')."""
    with open(HERE / "classes.tsv", encoding="utf-8") as f:
        rows = [r for r in csv.reader(f, delimiter="\t") if r and not r[0].startswith("#")]
    return [(chr(int(c, 16)), name, "" if article == "-" else article) for c, name, article in rows]


@functools.lru_cache(maxsize=None)
def annotations(language="en"):
    """CLDR's (short name, keywords) of every character in one language."""
    text = (CLDR_ROOT / "annotations" / f"{language}.xml").read_text(encoding="utf-8")
    keywords = dict(re.findall(r'<annotation cp="([^"]+)">([^<]+)<', text))
    return {cp: (name, [k.strip() for k in keywords.get(cp, "").split("|") if k.strip()])
            for cp, name in re.findall(r'<annotation cp="([^"]+)" type="tts">([^<]+)<', text)}


@functools.lru_cache(maxsize=None)
def named(language):
    """The name of every thing in a language of CLDR, e.g. "de"; English as classes.tsv has it."""
    if language == "en":
        return [name for _, name, _ in things()]
    table = annotations(language)
    return [table[character][0] for character, _, _ in things()]


@functools.lru_cache(maxsize=None)
def words(longest=10):
    """English words of 2..longest letters, from CLDR's names and keywords."""
    found = set()
    for name, keywords in annotations("en").values():
        for phrase in [name, *keywords]:
            found.update(re.findall(r"[a-z]+", phrase.lower()))
    return sorted(w for w in found if 2 <= len(w) <= longest)


@functools.lru_cache(maxsize=None)
def picture(index):
    """The emoji of one thing as RGBA, cropped to what is visible."""
    font = ImageFont.truetype(str(EMOJI_FONT), EMOJI_STRIKE)
    image = Image.new("RGBA", (160, 160), (0, 0, 0, 0))
    ImageDraw.Draw(image).text((10, 10), things()[index][0], font=font, embedded_color=True)
    box = image.getchannel("A").point(lambda a: 255 if a > 24 else 0).getbbox()
    if box is None:
        raise SystemExit(f"{EMOJI_FONT} has no picture of {things()[index]}")
    return image.crop(box)


@functools.lru_cache(maxsize=None)
def photo(name):
    """One photograph, its shorter side at most 1200 pixels."""
    image = Image.open(PHOTO_ROOT / name).convert("RGB")
    scale = 1200 / min(image.size)
    return image.resize([round(v * scale) for v in image.size], Image.LANCZOS) if scale < 1 else image


@functools.lru_cache(maxsize=None)
def garments(test):
    """(uint8 pictures [n, 28, 28], labels [n]) of Fashion-MNIST's public split."""
    part = "t10k" if test else "train"
    with gzip.open(GARMENT_ROOT / f"{part}-images-idx3-ubyte.gz") as f:
        pictures = np.frombuffer(f.read(), np.uint8, offset=16).reshape(-1, 28, 28)
    with gzip.open(GARMENT_ROOT / f"{part}-labels-idx1-ubyte.gz") as f:
        return pictures, np.frombuffer(f.read(), np.uint8, offset=8)


@functools.lru_cache(maxsize=512)
def font(path, size):
    """One font at one size."""
    return ImageFont.truetype(str(FONT_ROOT / path), size)


def colour_is_for_test(rgb):
    """Colours are split between training and test by an interleaved lattice of 12 levels a step."""
    r, g, b = (int(v) // 12 for v in rgb)
    return (r + 3 * g + 5 * b) % 7 == 0


def colour(rng, name, test):
    """A random colour of that name, from the half of the lattice that belongs to the split."""
    hue, saturation, value = COLOURS[name]
    for _ in range(200):
        h = rng.uniform(*hue) % 360 / 60
        s, v = rng.uniform(*saturation), rng.uniform(*value)
        k = [(n + h) % 6 for n in (5, 3, 1)]
        rgb = tuple(int(round(255 * v * (1 - s * max(0.0, min(x, 4 - x, 1.0))))) for x in k)
        if colour_is_for_test(rgb) == test:
            return rgb
    return rgb


def any_colour(rng, test):
    """A random colour without a name, of the split."""
    while True:
        rgb = tuple(int(v) for v in rng.integers(0, 256, 3))
        if colour_is_for_test(rgb) == test:
            return np.array(rgb)
