"""Measures a model on scenes that training cannot have seen, beside a blank image; torch or the C++ engine.

The scenes follow from committed seeds (scenes.TEST_SEEDS) and use fonts and background colours that
training never uses. Writes, into --scenes, the pictures, tasks.jsonl (what `pali batch` reads),
expected.jsonl, and answers-NAME.jsonl of each engine; prints a table in Markdown.

  evaluate.py --model models/pali-mini --scenes /tmp/scenes                      torch
  evaluate.py --model models/pali-mini --scenes /tmp/scenes --engine build/pali  the C++ engine as it comes and in f32,
                                                                                    and its agreement with torch
"""

import argparse
import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

import prompts
import scenes

LONGEST = {"caption": 64, "vqa": 32, "ocr": 32, "detect": 96}
GRAY = (128, 128, 128)


def tasks(count):
    """Yields (task, seed, scene picture, fields of the request, expected, type)."""
    for number, task in enumerate(("caption", "vqa", "ocr", "detect")):
        seed, made = scenes.TEST_SEEDS + 100000 * number, 0
        while made < count:
            seed += 1
            rng = np.random.default_rng([seed, 1])
            counts = {"ocr": (0.4, 0.2, 0.0, 0.4), "detect": (0.42, 0.35, 0.23, 0.0)}.get(task, (0.42, 0.33, 0.2, 0.05))
            image, scene = scenes.make(seed, test=True, side=224, counts=counts, word_share=1.0 if task == "ocr" else 0.25)
            if task == "caption":
                words = " + word" if scene["word"] else ""
                kind = f"{len(scene['objects'])} things{words}"
                yield task, seed, image, {}, prompts.caption(scene), kind
            elif task == "ocr":
                yield task, seed, image, {}, scene["word"], f"{len(scene['word'])} letters"
            elif task == "vqa":
                kind = prompts.QUESTION_TYPES[made % len(prompts.QUESTION_TYPES)]
                if kind == "written" and not scene["word"] and rng.random() < 0.9:
                    continue
                found = prompts.questions(scene, rng, kind)
                if not found:
                    continue
                yield task, seed, image, {"question": found[0]}, found[1], kind
            else:
                if not scene["objects"]:
                    continue
                asked, answer = prompts.detection(scene, rng)
                yield task, seed, image, {"objects": prompts.SEPARATOR.join(asked)}, answer, f"{len(scene['objects'])} things"
            made += 1


def make(folder, count):
    """Pictures, requests and expected answers; nothing where they are there already."""
    if (folder / "expected.jsonl").exists():
        return
    (folder / "images").mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (224, 224), GRAY).save(folder / "images" / "blank.png")
    requests, expected = [], []
    for task, seed, image, fields, answer, kind in tasks(count):
        name = f"images/{task}-{seed}.png"
        image.save(folder / name)
        for id, picture in ((f"{task}-{seed}", name), (f"blank-{task}-{seed}", "images/blank.png")):
            requests.append({"id": id, "image": picture, "task": task, **fields, "max_tokens": LONGEST[task]})
        expected.append({"id": f"{task}-{seed}", "task": task, "answer": answer, "type": kind})
    for name, lines in (("tasks.jsonl", requests), ("expected.jsonl", expected)):
        (folder / name).write_text("".join(json.dumps(x) + "\n" for x in lines))


def read(path):
    return [json.loads(x) for x in path.read_text().splitlines()]


def by_torch(model_folder, folder, out, threads, batch=50):
    """Answers through transformers in f32, greedy."""
    import torch

    import model as pali
    torch.set_num_threads(threads)
    net, tokenizer = pali.load(model_folder)
    requests, lines = read(folder / "tasks.jsonl"), []
    requests.sort(key=lambda r: r["task"])
    for i in range(0, len(requests), batch):
        part = requests[i:i + batch]
        pixels = np.stack([np.asarray(scenes.shrink(Image.open(folder / r["image"]))) for r in part])
        ids = [tokenizer.encode(prompts.PROMPTS[r["task"]].format(lang="EN", question=r.get("question", ""),
                                                                  objects=r.get("objects", ""))) for r in part]
        for r, got in zip(part, net.answer(torch.from_numpy(pixels), ids, max(LONGEST[r["task"]] for r in part)).tolist()):
            got = got[1:]
            got = got[:got.index(1)] if 1 in got else got[:LONGEST[r["task"]]]
            lines.append(json.dumps({"id": r["id"], "text": tokenizer.decode(got)}) + "\n")
    out.write_text("".join(lines))


def by_engine(binary, model_folder, folder, out, options):
    """Answers through `pali batch`."""
    command = [str(binary), "batch", str(folder / "tasks.jsonl"), "-o", str(out), "-m", str(model_folder), *options]
    print("$", " ".join(command), file=sys.stderr)
    if subprocess.run(command).returncode != 0:
        raise SystemExit(f"{binary} failed")


def normal(text):
    return " ".join(text.lower().split())


def interval(right, n):
    """Wilson's 95 % interval, in percent."""
    if not n:
        return "-"
    z, p = 1.96, right / n
    middle, half = (p + z * z / (2 * n)) / (1 + z * z / n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return f"{max(0.0, 100 * (middle - half)):.1f}-{100 * (middle + half):.1f}"


def distance(a, b):
    """Levenshtein."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        last, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            last, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, last + (x != y))
    return row[-1]


def parse(text):
    """[(name, box)] of a detection's text."""
    out = []
    for part in text.split(";"):
        words = part.split()
        if len(words) >= 5 and all(w.isdigit() for w in words[:4]):
            out.append((" ".join(words[4:]), [int(w) for w in words[:4]]))
    return out


def iou(a, b):
    h, w = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    both = max(0, h) * max(0, w)
    return both / max(1e-9, (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)


def found(answer, expected, threshold=0.5):
    """(right boxes, boxes given, boxes expected) of one scene."""
    given, wanted, right = parse(answer), parse(expected), 0
    left = list(wanted)
    for name, box in given:
        for other in left:
            if other[0] == name and iou(box, other[1]) >= threshold:
                left.remove(other)
                right += 1
                break
    return right, len(given), len(wanted)


def table(folder, name, engine_name):
    """The figures of answers-NAME.jsonl beside the same prompts about a gray picture."""
    answers = {r["id"]: r.get("text", "") for r in read(folder / f"answers-{name}.jsonl")}
    expected = read(folder / "expected.jsonl")
    print(f"\n| {engine_name} | n | right % | 95 % interval | blank image % |\n|---|---|---|---|---|")

    def line(title, part, score):
        right = sum(score(answers[e["id"]], e["answer"]) for e in part)
        blank = sum(score(answers["blank-" + e["id"]], e["answer"]) for e in part)
        n = len(part)
        print(f"| {title} | {n} | {100 * right / n:.1f} | {interval(right, n)} | {100 * blank / n:.1f} |")

    def exact(a, b):
        return normal(a) == normal(b)

    for task in ("caption", "vqa", "ocr"):
        part = [e for e in expected if e["task"] == task]
        line(f"**{task}**, exact", part, exact)
        for kind in sorted({e["type"] for e in part}):
            line(f"{task}: {kind}", [e for e in part if e["type"] == kind], exact)
    part = [e for e in expected if e["task"] == "ocr"]
    rates = [100 * sum(distance(normal(answers[p + e["id"]]), normal(e["answer"])) for e in part) /
             sum(len(e["answer"]) for e in part) for p in ("", "blank-")]
    print(f"| ocr, character error rate | {len(part)} | {rates[0]:.1f} | | {rates[1]:.1f} |")
    part = [e for e in expected if e["task"] == "detect"]
    sums = [np.sum([found(answers[p + e["id"]], e["answer"]) for e in part], axis=0) for p in ("", "blank-")]
    right, given, wanted = sums[0]
    print(f"| **detect**, boxes found (IoU >= 0.5) | {wanted} | {100 * right / wanted:.1f} | {interval(right, wanted)} | {100 * sums[1][0] / wanted:.1f} |")
    print(f"| detect, boxes given that are right | {given} | {100 * right / max(1, given):.1f} | {interval(right, given)} | {100 * sums[1][0] / max(1, sums[1][1]):.1f} |")
    line("detect, names right (boxes aside)", part, lambda a, b: sorted(n for n, _ in parse(a)) == sorted(n for n, _ in parse(b)))


def agreement(folder, a, b):
    one, two = ({r["id"]: r.get("text") for r in read(folder / f"answers-{n}.jsonl")} for n in (a, b))
    same = sum(one[k] == two[k] for k in one)
    print(f"\n{a} and {b} give the same text for {same} of {len(one)} requests ({100 * same / len(one):.2f} %)")
    for k in [k for k in one if one[k] != two[k]][:10]:
        print(f"  {k}: {one[k]!r} / {two[k]!r}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--scenes", type=Path, required=True, help="folder of the test scenes, made where missing")
    parser.add_argument("--count", type=int, default=500, help="scenes a task")
    parser.add_argument("--engine", type=Path, help="the pali binary; without it: torch")
    parser.add_argument("--options", default="", help="further options for pali, e.g. '--isa avx2'")
    parser.add_argument("--threads", type=int, default=2, help="of torch")
    args = parser.parse_args()
    make(args.scenes, args.count)
    if args.engine:
        for name, options in (("engine", []), ("engine-f32", ["--dtype", "f32"])):
            by_engine(args.engine, args.model, args.scenes, args.scenes / f"answers-{name}.jsonl",
                      options + args.options.split())
        table(args.scenes, "engine", "C++ engine")
        if (args.scenes / "answers-torch.jsonl").exists():
            agreement(args.scenes, "torch", "engine-f32")
            agreement(args.scenes, "torch", "engine")
    else:
        by_torch(args.model, args.scenes, args.scenes / "answers-torch.jsonl", args.threads)
        table(args.scenes, "torch", "torch, f32")


if __name__ == "__main__":
    main()
