"""A picture of 24 test scenes with what the model said: the first of each set, whatever it said.

Scenes over photographs are left out, for the photographs' licences ask for more than a sheet can say."""

import json

from PIL import Image, ImageDraw

import catalog
from scenes import photographed
from scores import iou, normal, parse

SHOWN = {"caption": 7, "languages": 3, "vqa": 6, "ocr": 3, "detect": 4, "garment": 1}
READABLE = ("DE", "FR", "ES", "IT", "PT", "RU", "EL")  # scripts that the font has
TILE, TEXT, COLUMNS = 168, 44, 6
RIGHT, WRONG = (0, 110, 40), (190, 20, 20)


def correct(expected, said):
    if expected["set"] != "detect":
        return normal(said) == normal(expected["answer"])
    given, wanted = parse(said), parse(expected["answer"])
    return sorted(n for n, _ in given) == sorted(m for m, _ in wanted) and all(any(n == m and iou(a, b) >= 0.5 for m, b in wanted) for n, a in given)


def clipped(font, text, width):
    while font.getlength(text) > width:
        text = text[:-2].rstrip("…") + "…"
    return text


def draw(folder, answers, expected, out):
    """answers: {id: text}; expected: the lines of expected.jsonl; `out`: a PNG of 256 colours."""
    chosen = []
    for name, count in SHOWN.items():
        part = [e for e in expected if e["set"] == name and e["id"] in answers and e.get("lang", "DE") in READABLE]
        part = [e for e in part if name == "garment" or not photographed(int(e["id"].rpartition("-")[2]))]
        chosen += part[:count]
    rows = -(-len(chosen) // COLUMNS)
    page = Image.new("RGB", (COLUMNS * (TILE + 6), rows * (TILE + TEXT + 4)), "white")
    pen, font = ImageDraw.Draw(page), catalog.font("dejavu/DejaVuSans.ttf", 11)
    for n, e in enumerate(chosen):
        x, y = n % COLUMNS * (TILE + 6) + 3, n // COLUMNS * (TILE + TEXT + 4) + 2
        image = Image.open(folder / e["image"]).convert("RGB").resize((TILE, TILE), Image.BICUBIC)
        said = answers[e["id"]]
        if e["set"] == "detect":
            over = ImageDraw.Draw(image)
            for _, (y0, x0, y1, x1) in parse(said):
                box = [v * TILE / 1000 for v in (x0, y0, x1, y1)]
                if box[2] > box[0] and box[3] > box[1]:
                    over.rectangle(box, outline="white", width=3)
                    over.rectangle(box, outline=(230, 0, 120), width=1)
        page.paste(image, (x, y))
        asked = {"caption": e["task"] + " " + e.get("lang", ""), "vqa": e.get("question", ""), "ocr": "ocr",
                 "detect": "detect: " + e.get("objects", "")}[e["task"]]
        good = correct(e, said)
        names = "; ".join(name for name, _ in parse(said)) or said if e["set"] == "detect" else said
        pen.text((x, y + TILE + 1), clipped(font, asked, TILE), font=font, fill=(90, 90, 90))
        pen.text((x, y + TILE + 14), clipped(font, names or "(nothing)", TILE), font=font, fill=RIGHT if good else WRONG)
        if not good:
            truth = "; ".join(name for name, _ in parse(e["answer"])) or e["answer"] if e["set"] == "detect" else e["answer"]
            pen.text((x, y + TILE + 27), clipped(font, "right: " + truth, TILE), font=font, fill=(90, 90, 90))
    page.quantize(128, dither=0).save(out, optimize=True)
    print(f"{out}: {json.dumps(dict(SHOWN))}, {out.stat().st_size // 1024} KB")
