"""Batches of scenes for train.py: pixels, what each patch shows, and what is asked about them."""

import json
import queue
import threading
from pathlib import Path

import numpy as np
import torch

import catalog
import prompts
import ul2
from tokenizer import PAD

LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
PATCH = 14


class Shards:
    """The scenes that render.py made."""

    def __init__(self, folder):
        paths = sorted(Path(folder).glob("*.npy"))
        if not paths:
            raise SystemExit(f"no shards in {folder}: run render.py first")
        self.pixels = [np.load(path, mmap_mode="r") for path in paths]
        self.lines = [[json.loads(x) for x in path.with_suffix(".jsonl").read_text().splitlines()] for path in paths]

    def sample(self, rng, count, single):
        """count scenes; `single`: share that is taken from scenes with one thing only."""
        pixels, descriptions = [], []
        while len(pixels) < count:
            s = int(rng.integers(len(self.pixels)))
            i = int(rng.integers(len(self.lines[s])))
            scene = self.lines[s][i]
            if len(pixels) < single * count and (len(scene["objects"]) != 1 or scene["word"]):
                continue
            pixels.append(self.pixels[s][i])
            descriptions.append(scene)
        return np.stack(pixels), descriptions


# What a patch shows: 0 nothing that has a name, then the things, a word, the background's colour, a garment.
WORD = len(catalog.things()) + 1
COLOUR = WORD + 1
GARMENT = COLOUR + len(catalog.COLOURS)
LABELS = GARMENT + len(catalog.GARMENTS)


def patch_labels(descriptions, grid):
    """What each of grid x grid patches shows, and which letters have their centre in it."""
    labels = np.zeros((len(descriptions), grid, grid), np.int64)
    letters = np.zeros((len(descriptions), grid, grid, len(LETTERS)), np.float32)
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
                if letter in LETTERS:
                    letters[n, y, min(grid - 1, int(x * grid)), LETTERS.index(letter)] = 1
    return torch.from_numpy(labels).flatten(1), torch.from_numpy(letters).flatten(1, 2)


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


def contrastive_text(scene, rng):
    """A caption in any language; the word itself where there is nothing else."""
    languages = list(prompts.JOINS)
    if scene["word"] and not scene["objects"]:
        return scene["word"]
    return prompts.caption(scene, "EN" if rng.random() < 0.4 else languages[int(rng.integers(len(languages)))])


def rows(ids, value):
    width = max(len(r) for r in ids)
    return torch.tensor([list(r) + [value] * (width - len(r)) for r in ids])


def token_weights(answer, tokenizer):
    """Weights of an answer's tokens: of a coordinate's three digits the first says most, the last is mostly noise."""
    out, place = [], 0
    for token in answer:
        digit = token in tokenizer.digits
        out.append((3.0, 1.0, 0.1)[min(place, 2)] if digit else 1.0)
        place = place + 1 if digit else 0
    return out


def ask(descriptions, tokenizer, rng, share):
    """Prompts and answers about the images: {task: (image numbers, prompts, answers)}."""
    out = {task: ([], [], []) for task in ("caption", "vqa", "ocr", "detect")}

    def add(task, n, prompt, answer):
        for part, value in zip(out[task], (n, tokenizer.encode(prompt), answer)):
            part.append(value)

    for n, scene in enumerate(descriptions):
        if rng.random() < share["caption"] and scene["garment"] is None:
            languages = list(prompts.JOINS)
            lang = "EN" if rng.random() < 0.4 else languages[int(rng.integers(len(languages)))]
            add("caption", n, prompts.prompt("caption", lang), tokenizer.encode(prompts.caption(scene, lang)))
        if rng.random() < share["vqa"]:
            kind = prompts.QUESTION_TYPES[int(rng.choice(7, p=(0.25, 0.2, 0.1, 0.17, 0.18, 0.1, 0.0)))]
            kind = "garment" if scene["garment"] is not None else kind
            if kind == "written" and scene["word"] is None and rng.random() < 0.8:
                kind = "what"
            found = prompts.questions(scene, rng, kind)
            if found:
                encode = tokenizer.spell if kind == "written" and scene["word"] else tokenizer.encode
                add("vqa", n, prompts.prompt("vqa", question=found[0]), encode(found[1]))
        if scene["word"] and rng.random() < share["ocr"]:
            add("ocr", n, prompts.prompt("ocr"), tokenizer.spell(scene["word"]))
        if scene["objects"] and rng.random() < share["detect"]:
            names, answer = prompts.detection(scene, rng)
            add("detect", n, prompts.prompt("detect", objects=names), tokenizer.encode(answer))
    return out


class Batches(threading.Thread):
    """Prepares batches beside the training; each follows from (seed, step)."""

    def __init__(self, args, tokenizer, step):
        super().__init__(daemon=True)
        self.args, self.tokenizer, self.step = args, tokenizer, step
        self.shards, self.queue = Shards(args.data), queue.Queue(4)

    def run(self):
        try:
            while True:
                self.queue.put(self.make(np.random.default_rng([self.args.seed, self.step])))
                self.step += 1
        except BaseException as error:  # handed to the training, which stops
            self.queue.put(error)

    def make(self, rng):
        single = self.args.single * max(0.0, 1 - 3 * self.step / self.args.steps)
        pixels, descriptions = self.shards.sample(rng, self.args.batch, single)
        labels, letters = patch_labels(descriptions, pixels.shape[1] // PATCH)
        texts = [contrastive_text(s, rng) for s in descriptions]
        same = torch.tensor([[a == b for b in texts] for a in texts])
        places = patch_places(descriptions, labels)
        batch = {"places": places, "pixels": torch.from_numpy(pixels), "labels": labels, "letters": letters, "same": same,
                 "texts": torch.tensor([self.tokenizer.siglip(t) for t in texts])}
        if self.args.stage == "language":
            lines = [ul2.corrupt(self.tokenizer.encode(ul2.sentence(s, rng)), self.tokenizer.sentinels, rng) for s in descriptions]
            batch["corrupted"], batch["hidden"] = rows([a for a, _ in lines], PAD), rows([b for _, b in lines], -100)
        if self.args.stage in ("language", "mixture"):
            asked = ask(descriptions, self.tokenizer, rng, self.args.shares)
            order = [t for t in asked if asked[t][0]]
            batch["images"] = torch.tensor([n for t in order for n in asked[t][0]])
            batch["prompts"] = rows([p for t in order for p in asked[t][1]], PAD)
            batch["tasks"] = [(t, rows(asked[t][2], -100), rows([token_weights(a, self.tokenizer) for a in asked[t][2]], 0.0))
                              for t in order]
        return batch
