"""Renders training scenes into shards, for ever or up to a number; started again it goes on where it was.

A shard is NNNNN.npy (uint8, N x 112 x 112 x 3) beside NNNNN.jsonl (the descriptions).
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np

import scenes


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--shard", type=int, default=2048, help="scenes a shard")
    parser.add_argument("--shards", type=int, default=60)
    parser.add_argument("--size", type=int, default=112)
    parser.add_argument("--garments", type=float, default=0.08, help="share of scenes that are one garment")
    parser.add_argument("--first", type=int, default=0, help="number of the first shard (several renderers)")
    parser.add_argument("--step", type=int, default=1)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for number in range(args.first, args.shards, args.step):
        done = args.out / f"{number:05d}.npy"
        if done.exists():
            continue
        start = time.time()
        pixels = np.empty((args.shard, args.size, args.size, 3), np.uint8)
        lines = []
        for i in range(args.shard):
            image, description = scenes.make(scenes.TRAIN_SEEDS + number * args.shard + i, garment_share=args.garments)
            pixels[i] = np.asarray(scenes.shrink(image, args.size))
            lines.append(json.dumps(description))
        done.with_suffix(".jsonl").write_text("\n".join(lines) + "\n")
        part = done.with_suffix(".part")
        with open(part, "wb") as f:
            np.save(f, pixels)
        part.rename(done)
        print(f"shard {number}: {args.shard / (time.time() - start):.0f} scenes/s", flush=True)


if __name__ == "__main__":
    main()
