"""The test scenes: what is asked about them and what is right. Fixed before training.

They follow from committed seeds (scenes.TEST_SEEDS, 100000 a task) and use photographs, fonts and colours that
training never uses. Answers of a closed set (yes and no, counts, places, colours) are equally frequent.
"""

import itertools
import json

import numpy as np
from PIL import Image

import catalog
import prompts
import scenes

LONGEST = {"caption": 64, "vqa": 32, "ocr": 32, "detect": 96}
GRAY = (128, 128, 128)
CLOSED = {"present": ["yes", "no"], "count": ["1", "2", "3", "4"], "colour": list(catalog.COLOURS),
          "where": ["left", "right", "top", "bottom", "middle"]}
OTHERS = [lang for lang in prompts.JOINS if lang != "EN"]


def draw(start, accept, **options):
    """Scenes of the test kind from that seed on, with what `accept` makes of (scene, rng) where it is not None."""
    for seed in itertools.count(start):
        image, scene = scenes.make(seed, test=True, side=224, **options)
        found = accept(scene, np.random.default_rng([seed, 1]))
        if found is not None:
            yield seed, image, scene, found


def captions(count, start):
    for seed, image, scene, text in itertools.islice(draw(start, lambda s, _: prompts.caption(s)), count):
        words = " + word" if scene["word"] else ""
        yield seed, image, {"task": "caption"}, text, f"{len(scene['objects'])} things{words}"


def languages(count, start):
    """The same in every other language, the languages in turn; no scene stands for two."""
    drawn = draw(start, lambda s, _: s if s["objects"] else None)
    for lang, (seed, image, scene, _) in zip(itertools.cycle(OTHERS), itertools.islice(drawn, count)):
        yield seed, image, {"task": "caption", "lang": lang}, prompts.caption(scene, lang), lang


def questions(count, start):
    """The question types in turn, within each its answers in turn."""
    kinds = [k for k in prompts.QUESTION_TYPES if k != "garment"]
    answers = {k: itertools.cycle(v) for k, v in CLOSED.items()}
    for n in range(count):
        kind = kinds[n % len(kinds)]
        wanted = next(answers[kind]) if kind in answers else None

        def asked(scene, rng):
            if kind == "written" and not scene["word"]:
                return None
            found = prompts.questions(scene, rng, kind)
            return found if found and wanted in (None, found[1]) else None

        seed, image, _, (question, answer) = next(draw(start, asked))
        start = seed + 1
        yield seed, image, {"task": "vqa", "question": question}, answer, kind


def words(count, start):
    drawn = draw(start, lambda s, _: s["word"], counts={1: 0.4, 2: 0.2, 0: 0.4}, word_share=1.0)
    for seed, image, _, word in itertools.islice(drawn, count):
        yield seed, image, {"task": "ocr"}, word, f"{len(word)} letters"


def detections(count, start):
    drawn = draw(start, lambda s, rng: prompts.detection(s, rng) if s["objects"] else None)
    for seed, image, scene, (asked, answer) in itertools.islice(drawn, count):
        fields = {"task": "detect", "objects": prompts.SEPARATOR.join(asked)}
        yield seed, image, fields, answer, f"{len(scene['objects'])} things"


def garments(count, start):
    """Fashion-MNIST's public test set: all of it, whatever `count` says, 28 x 28 as it is."""
    pictures, labels = catalog.garments(test=True)
    question = prompts.QUESTIONS["EN"]["garment"]
    for number, (picture, label) in enumerate(zip(pictures, labels)):
        answer = catalog.GARMENTS[int(label)]
        yield start + number, Image.fromarray(picture), {"task": "vqa", "question": question}, answer, answer


def labels(count, start):
    """Single things for `pali classify` over all names."""
    drawn = draw(start, lambda s, _: s["objects"][0][0] if s["objects"] else None, counts={1: 1.0}, word_share=0.0)
    for seed, image, _, index in itertools.islice(drawn, count):
        yield seed, image, {"task": "classify"}, prompts.named(index), "classify"


SETS = {"caption": captions, "languages": languages, "vqa": questions, "ocr": words, "detect": detections,
        "garment": garments, "classify": labels}


def make(folder, count, chosen=tuple(SETS)):
    """Pictures, requests and expected answers in `folder`, nothing where they are there already.

    tasks.jsonl is what `pali batch` reads: each request about its picture, about the next picture of the set
    ("shuffled-"), and once for each prompt about a gray one ("blank-")."""
    if (folder / "expected.jsonl").exists():
        return
    (folder / "images").mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (224, 224), GRAY).save(folder / "images" / "blank.png")
    requests, expected, blanks = [], [], {}
    for number, name in enumerate(SETS):
        if name not in chosen:
            continue
        rows = []
        for seed, image, fields, answer, kind in SETS[name](count, scenes.TEST_SEEDS + 100000 * number):
            picture = f"images/{name}-{seed}.png"
            image.save(folder / picture)
            rows.append((f"{name}-{seed}", picture, fields))
            if fields["task"] != "classify":
                blank = blanks.setdefault(json.dumps(fields), f"blank-{len(blanks)}")
            expected.append({"id": rows[-1][0], "set": name, "answer": answer, "type": kind, "blank": blank,
                             "image": picture, **fields})
        if name != "classify":
            for (id, picture, fields), (_, other, _) in zip(rows, rows[1:] + rows[:1]):
                more = {**fields, "max_tokens": LONGEST[fields["task"]]}
                requests.append({"id": id, "image": picture, **more})
                requests.append({"id": "shuffled-" + id, "image": other, **more})
    for fields, id in blanks.items():
        fields = json.loads(fields)
        requests.append({"id": id, "image": "images/blank.png", **fields, "max_tokens": LONGEST[fields["task"]]})
    for name, lines in (("tasks.jsonl", requests), ("expected.jsonl", expected)):
        (folder / name).write_text("".join(json.dumps(x, ensure_ascii=False) + "\n" for x in lines))
