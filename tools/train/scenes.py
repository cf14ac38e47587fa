"""Makes scenes: things and at most one word over a background, and says where everything is.

A scene is a function of (seed, split). Training draws its seeds from TRAIN_SEEDS upward, tests from
TEST_SEEDS, so that no test scene can have been seen; tests moreover use fonts, photographs and colours
that training never uses (catalog.py).
"""

import io

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter

import catalog

TRAIN_SEEDS = 1_000_000_000
TEST_SEEDS = 7_000_000  # evaluate.py gives each task its own 100000; watch +900000

# The longer side of a thing over the side of the picture, by how many there are.
SIZES = {1: (0.22, 0.70), 2: (0.18, 0.50), 3: (0.15, 0.42), 4: (0.12, 0.36)}
COUNTS = {1: 0.40, 2: 0.28, 3: 0.18, 4: 0.10, 0: 0.04}  # shares of scenes; 0: a word alone
MIN_DX = 0.09  # horizontal distance of centres: "from left to right" is then clear


def background(rng, side, test):
    """(picture, colour name or None): half photographs, else flat, gradient or noise."""
    kind = rng.random()
    if kind < 0.5:
        names = catalog.TEST_PHOTOS if test else catalog.TRAIN_PHOTOS
        photo = catalog.photo(names[int(rng.integers(len(names)))])
        size = int(min(photo.size) * rng.uniform(0.15, 1.0))
        x, y = (int(rng.integers(0, v - size + 1)) for v in photo.size)
        image = photo.resize((side, side), Image.BILINEAR, (x, y, x + size, y + size), reducing_gap=2.0)
        image = image.transpose(Image.FLIP_LEFT_RIGHT) if rng.random() < 0.5 else image
        image = ImageEnhance.Color(image).enhance(rng.uniform(0.4, 1.4))
        return ImageEnhance.Brightness(image).enhance(rng.uniform(0.7, 1.25)), None
    if kind < 0.75:
        name = str(rng.choice(list(catalog.COLOURS)))
        first = catalog.colour(rng, name, test)
        if kind < 0.65:
            return Image.new("RGB", (side, side), first), name
        second = catalog.colour(rng, name, test)
        ramp = np.linspace(0, 1, 16)[:, None, None]
        grid = (np.array(first) * (1 - ramp) + np.array(second) * ramp) * np.ones((1, 16, 1))
        image = Image.fromarray(grid.round().astype(np.uint8)).rotate(90 * int(rng.integers(4)))
        return image.resize((side, side), Image.BILINEAR), name
    if kind < 0.87:
        corners = np.stack([catalog.any_colour(rng, test) for _ in range(4)]).reshape(2, 2, 3)
        return Image.fromarray(corners.astype(np.uint8)).resize((side, side), Image.BILINEAR), None
    base = catalog.any_colour(rng, test)
    cells = int(rng.integers(3, 48))
    noise = rng.normal(0, rng.uniform(5, 40), (cells, cells, 3 if rng.random() < 0.5 else 1))
    grid = np.clip(base + noise, 0, 255).astype(np.uint8)
    return Image.fromarray(grid).resize((side, side), Image.BICUBIC), None


def photographed(seed):
    """Whether make(seed, side=...) puts its scene over a photograph: the first draw of background()."""
    return np.random.default_rng(seed).random() < 0.5


def luminance(rgb):
    return (0.299 * rgb[0] + 0.587 * rgb[1] + 0.114 * rgb[2]) / 255


def spelled(rng):
    """A word to write: mostly English, sometimes letters at random; lower, UPPER or Title case."""
    if rng.random() < 0.75:
        vocabulary = catalog.words(10)
        word = vocabulary[int(rng.integers(len(vocabulary)))]
    else:
        word = "".join(chr(97 + int(c)) for c in rng.integers(0, 26, int(rng.integers(2, 9))))
    case = rng.random()
    return word.upper() if case < 0.45 else word.title() if case < 0.6 else word


def draw_word(rng, image, word, test, alone):
    """Writes the word; returns its box and the centre of every letter, all 0..1."""
    side = image.size[0]
    fonts = catalog.TEST_FONTS if test else catalog.TRAIN_FONTS
    path = fonts[int(rng.integers(len(fonts)))]
    low = min(0.9, 0.10 * len(word) + 0.05)
    width = rng.uniform(low, 0.95) * side
    unit = catalog.font(path, 100)
    highest = 0.34 if alone else 0.24
    size = int(min(width / unit.getlength(word) * 100, highest * side / 0.75))
    font = catalog.font(path, max(8, size))
    x0, y0, x1, y1 = font.getbbox(word)
    w, h = x1 - x0, y1 - y0
    px = int(rng.integers(2, max(3, side - w - 2)))
    if alone:
        py = int(rng.integers(2, max(3, side - h - 2)))
    else:  # a band at the top or the bottom leaves room for things
        room = max(2, int(0.3 * side) - h)
        py = int(rng.integers(2, room + 1)) if rng.random() < 0.5 else side - h - 2 - int(rng.integers(0, room))
    patch = np.asarray(image.crop((px, py, px + w, py + h)).resize((4, 4), Image.BOX), float).reshape(-1, 3)
    below = luminance(patch.mean(0))
    for _ in range(50):
        ink = tuple(int(v) for v in catalog.any_colour(rng, test))
        if abs(luminance(ink) - below) > 0.4:
            break
    else:
        ink = (0, 0, 0) if below > 0.5 else (255, 255, 255)
    ImageDraw.Draw(image).text((px - x0, py - y0), word, font=font, fill=ink)
    letters = []
    for i, letter in enumerate(word):
        left, right = font.getlength(word[:i]), font.getlength(word[:i + 1])
        letters.append([round((px - x0 + (left + right) / 2) / side, 4), letter])
    box = [py / side, px / side, (py + h) / side, (px + w) / side]
    return [round(v, 4) for v in box], letters


def overlap(a, b, margin=0.0):
    """Intersection over the smaller area of two (ymin, xmin, ymax, xmax) boxes."""
    h = min(a[2], b[2]) - max(a[0], b[0]) + margin
    w = min(a[3], b[3]) - max(a[1], b[1]) + margin
    if h <= 0 or w <= 0:
        return 0.0
    return h * w / min((a[2] - a[0]) * (a[3] - a[1]), (b[2] - b[0]) * (b[3] - b[1]))


def turned(rng, index, side, size):
    """The picture of one thing at that size, turned and perhaps mirrored, cropped to what is visible."""
    image = catalog.picture(index)
    if rng.random() < 0.5:
        image = image.transpose(Image.FLIP_LEFT_RIGHT)
    scale = size * side / max(image.size)
    image = image.resize([max(2, round(v * scale)) for v in image.size], Image.BICUBIC)
    image = image.rotate(rng.uniform(-30, 30), Image.BICUBIC, expand=True)
    box = image.getchannel("A").point(lambda a: 255 if a > 24 else 0).getbbox()
    return image.crop(box)


def degrade(rng, image):
    """Light, blur and JPEG artefacts, each sometimes."""
    if rng.random() < 0.25:
        image = ImageEnhance.Brightness(image).enhance(rng.uniform(0.8, 1.15))
    if rng.random() < 0.15:
        image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 0.8) * image.size[0] / 224))
    if rng.random() < 0.25:
        data = io.BytesIO()
        image.save(data, "JPEG", quality=int(rng.integers(50, 95)))
        image = Image.open(data)
        image.load()
    return image


def garment(rng, number, test):
    """A garment of Fashion-MNIST that fills the picture; in training slightly moved, mirrored and lit."""
    pictures, labels = catalog.garments(test)
    image = Image.fromarray(pictures[number])
    if not test:
        image = image.transpose(Image.FLIP_LEFT_RIGHT) if rng.random() < 0.5 else image
        dx, dy = rng.integers(-2, 3, 2)
        image = image.transform(image.size, Image.AFFINE, (1, 0, int(dx), 0, 1, int(dy)))
        image = ImageEnhance.Brightness(image).enhance(rng.uniform(0.8, 1.2))
    return image.convert("RGB"), {"objects": [], "word": None, "word_box": None, "letters": None, "colour": None,
                                  "garment": int(labels[number])}


def make(seed, test=False, side=None, counts=COUNTS, word_share=0.25, garment_share=0.0):
    """One scene: (RGB picture, description).

    counts: shares of scenes with so many things. garment_share: of scenes that are one garment instead.
    Description: objects [[thing, ymin, xmin, ymax, xmax], ...] from left to right, word, word_box,
    letters [[x, letter], ...], colour (of the background, or None), garment (or None). Coordinates are 0..1.
    """
    rng = np.random.default_rng(seed)
    if garment_share and rng.random() < garment_share:
        return garment(rng, int(rng.integers(len(catalog.garments(test)[1]))), test)
    if side is None:
        side = (112, 224, 448)[int(rng.choice(3, p=(0.5, 0.4, 0.1)))]
    image, colour = background(rng, side, test)
    count = int(rng.choice(list(counts), p=np.array(list(counts.values())) / sum(counts.values())))
    word = box = letters = None
    if count == 0 or rng.random() < word_share:
        word = spelled(rng)
        box, letters = draw_word(rng, image, word, test, count == 0)
    objects = []
    for index in rng.choice(len(catalog.things()), count, replace=False):
        for attempt in range(40):
            low, high = SIZES[count]
            size = rng.uniform(low, high if attempt < 15 else (low + high) / 2)
            picture = turned(rng, int(index), side, size)
            w, h = picture.size
            if w > side or h > side:
                continue
            x, y = int(rng.integers(0, side - w + 1)), int(rng.integers(0, side - h + 1))
            new = [y / side, x / side, (y + h) / side, (x + w) / side]
            middle = (new[1] + new[3]) / 2
            if box and overlap(new, box) > 0:
                continue
            if any(overlap(new, o[1:]) > 0.08 or abs((o[2] + o[4]) / 2 - middle) < MIN_DX for o in objects):
                continue
            image.paste(picture, (x, y), picture)
            objects.append([int(index), *[round(v, 4) for v in new]])
            break
    objects.sort(key=lambda o: o[2] + o[4])
    if not objects and word is None:  # never an empty scene
        return make(seed + 500_000_000_000, test, side, counts, word_share)
    return degrade(rng, image).convert("RGB"), {"objects": objects, "word": word, "word_box": box,
                                                "letters": letters, "colour": colour, "garment": None}


def shrink(image, size=112):
    """The processor's resize: PIL bicubic to an exact square."""
    return image if image.size == (size, size) else image.resize((size, size), Image.BICUBIC)
