"""Batches of scenes for train.py: pixels, what each patch shows, and what is asked about them."""

import math
import queue
import threading

import numpy as np
import torch

import catalog
import prompts
import ul2
from bank import SIDE
from tokenizer import PAD

LETTERS = "abcdefghijklmnopqrstuvwxyz"  # words are read in lower case
SPOTS = 2 * len(LETTERS)  # a letter has its centre in the left or in the right half of a patch: that orders them
PATCH = 14


# What a patch shows: 0 nothing that has a name, then the things, a word, the background's colour, a garment.
WORD = len(catalog.things()) + 1
COLOUR = WORD + 1
GARMENT = COLOUR + len(catalog.COLOURS)
LABELS = GARMENT + len(catalog.GARMENTS)


def patch_labels(descriptions, grid):
    """What each of grid x grid patches shows, and which letters have their centre in it."""
    labels = np.zeros((len(descriptions), grid, grid), np.int64)
    letters = np.zeros((len(descriptions), grid, grid, SPOTS), np.float32)
    at, colours = (np.arange(grid) + 0.5) / grid, list(catalog.COLOURS)
    for n, scene in enumerate(descriptions):
        if scene["colour"]:
            labels[n] = COLOUR + colours.index(scene["colour"])
        if scene["garment"] is not None:
            labels[n] = GARMENT + scene["garment"]
        for index, *b in sorted(scene["objects"], key=lambda o: -(o[3] - o[1]) * (o[4] - o[2])):
            labels[n][np.ix_((at > b[0]) & (at < b[2]), (at > b[1]) & (at < b[3]))] = index + 1
        if scene["word"]:
            b = scene["word_box"]
            y = min(grid - 1, int((b[0] + b[2]) / 2 * grid))
            labels[n, y, (at > b[1]) & (at < b[3])] = WORD
            for x, letter in scene["letters"]:
                at_half = min(2 * grid - 1, int(x * 2 * grid))
                letters[n, y, at_half // 2, at_half % 2 * len(LETTERS) + LETTERS.index(letter.lower())] = 1
    return torch.from_numpy(labels).flatten(1), torch.from_numpy(letters).flatten(1, 2)


def waves(places):
    """Coordinates of -1..1 with their sines and cosines: a linear map can then tell one digit from the next."""
    return torch.cat([places] + [wave(k * math.pi * places) for k in (1, 2, 4) for wave in (torch.sin, torch.cos)], -1)


PLACES = 6 * 7


def patch_places(descriptions, labels):
    """Where each patch is (x, y) and the box of the thing that it shows: ymin, xmin, ymax, xmax, all -1..1."""
    grid = round(labels.shape[1] ** 0.5)
    at = (torch.arange(grid) + 0.5) / grid
    out = torch.zeros(len(descriptions), grid * grid, 6)
    out[..., 0], out[..., 1] = at.repeat(grid), at.repeat_interleave(grid)
    for n, scene in enumerate(descriptions):
        for index, *box in scene["objects"]:
            out[n, labels[n] == index + 1, 2:] = torch.tensor(box)
        if scene["word"]:
            out[n, labels[n] == WORD, 2:] = torch.tensor(scene["word_box"])
    return out * 2 - 1


def shown(descriptions, side=SIDE):
    """What every patch of the scenes shows, letters and places: the truth that naming learns and symbols tell."""
    labels, letters = patch_labels(descriptions, side // PATCH)
    return {"labels": labels, "letters": letters, "places": patch_places(descriptions, labels)}


def contrastive_text(scene, rng):
    """A caption in any language; the word itself where there is nothing else."""
    languages = list(prompts.JOINS)
    if scene["word"] and not scene["objects"]:
        return scene["word"]
    return prompts.caption(scene, "EN" if rng.random() < 0.4 else languages[int(rng.integers(len(languages)))])


def rows(ids, value, width):
    """Rows of that many ids, filled up or cut."""
    return torch.tensor([[*r[:width], *[value] * (width - len(r))] for r in ids])


# Requests of a batch over its scenes, by task; and how many of all requests, sorted by the length of their answers,
# are said together at which width. Shapes are always the same: both oneDNN and the compiler prepare each for itself.
QUOTAS = {"language": {"caption": 0.75, "vqa": 0.75, "ocr": 0.25, "detect": 0.375},
          "mixture": {"caption": 0.75, "vqa": 0.75, "ocr": 0.25, "detect": 0.375}}
TASKS = ["caption", "vqa", "ocr", "detect"]
WIDTHS = {0.6: 8, 0.85: 24, 1.0: 80}
PROMPT, LINE = 24, 64  # longest prompt, longest line of UL2


def requests(asked, quotas, tokenizer):
    """{task: (image numbers, prompts, answers)} -> the tensors of a batch, rows sorted by the length of the answers.

    Where there are too few requests of a task, rows without an answer stand in."""
    each = []
    for number, (task, quota) in enumerate(quotas.items()):
        found = list(zip(*asked[task]))[:quota]
        each += [(number, *row) for row in found] + [(number, 0, (PAD,), ())] * (quota - len(found))
    each.sort(key=lambda row: len(row[3]))
    batch = {"images": torch.tensor([row[1] for row in each]), "prompts": rows([row[2] for row in each], PAD, PROMPT), "groups": []}
    start = 0
    for share, width in WIDTHS.items():
        part, start = each[start:round(share * len(each))], round(share * len(each))
        answers = [row[3] for row in part]
        batch["groups"].append((torch.tensor([row[0] for row in part]), rows(answers, -100, width),
                                rows([token_weights(a, tokenizer) for a in answers], 0.0, width)))
    return batch


def token_weights(answer, tokenizer):
    """Weights of an answer's tokens: of a coordinate's three digits the first says most, the last is always 0."""
    out, place = [], 0
    for token in answer:
        digit = token in tokenizer.digits
        out.append((3.0, 1.0, 0.2)[min(place, 2)] if digit else 1.0)
        place = place + 1 if digit else 0
    return out


def ask(descriptions, tokenizer, rng, english):
    """Prompts and answers about the images, everything that can be asked: {task: (image numbers, prompts, answers)}."""
    out = {task: ([], [], []) for task in TASKS}
    languages = list(prompts.JOINS)

    def add(task, n, prompt, answer):
        for part, value in zip(out[task], (n, tokenizer.encode(prompt), answer)):
            part.append(value)

    for n, scene in enumerate(descriptions):
        if scene["garment"] is None:
            lang = "EN" if rng.random() < english else languages[int(rng.integers(len(languages)))]
            add("caption", n, prompts.prompt("caption", lang), tokenizer.encode(prompts.caption(scene, lang)))
        kind = prompts.QUESTION_TYPES[int(rng.choice(7, p=(0.22, 0.09, 0.13, 0.28, 0.18, 0.1, 0.0)))]
        kind = "garment" if scene["garment"] is not None else kind
        if kind == "written" and scene["word"] is None and rng.random() < 0.8:
            kind = "what"
        found = prompts.questions(scene, rng, kind)
        if found:
            encode = tokenizer.spell if kind == "written" and scene["word"] else tokenizer.encode
            add("vqa", n, prompts.prompt("vqa", question=found[0]), encode(found[1]))
        if scene["word"]:
            add("ocr", n, prompts.prompt("ocr"), tokenizer.spell(scene["word"]))
        if scene["objects"]:
            names, answer = prompts.detection(scene, rng, step=10)
            add("detect", n, prompts.prompt("detect", objects=names), tokenizer.encode(answer))
    return out


class Batches(threading.Thread):
    """Prepares batches beside the training; each follows from (seed, step)."""

    def __init__(self, args, bank, tokenizer, step):
        super().__init__(daemon=True)
        self.args, self.tokenizer, self.step = args, tokenizer, step
        self.bank, self.queue = bank, queue.Queue(4)

    def run(self):
        try:
            while True:
                self.queue.put(self.make(np.random.default_rng([self.args.seed, self.step])))
                self.step += 1
        except BaseException as error:  # handed to the training, which stops
            self.queue.put(error)

    def make(self, rng):
        told = self.args.stage == "language"
        if told:
            descriptions, batch = self.bank.told(rng, self.args.batch, self.args.words), {}
        else:
            single = self.args.single * max(0.0, 1 - 3 * self.step / self.args.steps)
            pixels, descriptions = self.bank.sample(rng, self.args.batch, single, self.args.dense, self.args.words)
            batch = {"pixels": torch.from_numpy(pixels)}
        batch.update(shown(descriptions, self.bank.side))
        if told and self.args.ul2 > 0:
            lines = [ul2.corrupt(self.tokenizer.encode(ul2.sentence(s, rng))[-LINE:], self.tokenizer.sentinels, rng) for s in descriptions[::4]]
            batch["corrupted"], batch["hidden"] = rows([a for a, _ in lines], PAD, LINE), rows([b for _, b in lines], -100, LINE)
        elif not told and self.args.contrast > 0:
            texts = [contrastive_text(s, rng) for s in descriptions]
            batch["same"] = torch.tensor([[a == b for b in texts] for a in texts])
            batch["texts"] = torch.tensor([self.tokenizer.siglip(t) for t in texts])
        if self.args.stage in QUOTAS:
            quotas = {t: round(n * len(descriptions)) for t, n in QUOTAS[self.args.stage].items()}
            asked = ask(descriptions, self.tokenizer, rng, self.args.english)
            batch.update(requests(asked, quotas, self.tokenizer))
        return batch
