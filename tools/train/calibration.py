"""Requests for `pali convert --calibrate`: every task about scenes of the training kind, never the test's.

  calibration.py --out W/calibration
  pali convert models/pali-mini -o int4.safetensors --dtype int4 --calibrate W/calibration/requests.jsonl
"""

import argparse
import json
from pathlib import Path

import numpy as np

import prompts
import scenes
from testset import LONGEST

FIRST_SEED = scenes.TRAIN_SEEDS - 1_000_000  # below those that training draws


def ask(scene, rng):
    """A question of any type that the scene is good for, or None."""
    kinds = [k for k in prompts.QUESTION_TYPES if k != "garment"]
    asked = prompts.questions(scene, rng, kinds[int(rng.integers(len(kinds)))])
    return asked and {"question": asked[0]}


# What a task's request has beside the picture, or None; and how its scenes are drawn, as testset.py does.
TASKS = {
    "caption": (lambda scene, rng: {}, {}),
    "vqa": (ask, {}),
    "ocr": (lambda scene, rng: {} if scene["word"] else None, {"counts": {1: 0.4, 2: 0.2, 0: 0.4}, "word_share": 1.0}),
    "detect": (lambda scene, rng: {"objects": prompts.SEPARATOR.join(prompts.detection(scene, rng)[0])}
               if scene["objects"] else None, {}),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--requests", type=int, default=400, help="of each task")
    args = parser.parse_args()
    (args.out / "images").mkdir(parents=True, exist_ok=True)
    lines, seed = [], FIRST_SEED
    for task, (fields_of, options) in TASKS.items():
        wanted = len(lines) + args.requests
        while len(lines) < wanted:
            seed += 1
            image, scene = scenes.make(seed, side=224, **options)
            fields = fields_of(scene, np.random.default_rng([seed, 1]))
            if fields is None:
                continue
            picture = f"images/{task}-{seed}.png"
            image.save(args.out / picture)
            lines.append({"id": f"{task}-{seed}", "image": picture, "task": task, **fields,
                          "max_tokens": LONGEST[task]})
    (args.out / "requests.jsonl").write_text("".join(json.dumps(x, ensure_ascii=False) + "\n" for x in lines))


if __name__ == "__main__":
    main()
