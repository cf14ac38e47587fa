"""Measures a model on scenes that training cannot have seen (testset.py); through torch or the C++ engine.

Writes, into --scenes, the pictures, tasks.jsonl (what `pali batch` reads), expected.jsonl, and
answers-NAME.jsonl of each engine; prints a table in Markdown.

  evaluate.py --model models/pali-mini --scenes W/scenes                            torch
  evaluate.py --model models/pali-mini --scenes W/scenes --engine build/.../pali    the C++ engine; with --f32 in f32
                                                                                    too, and its agreement with torch;
                                                                                    with --retrieval in 12 languages
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

import prompts
import retrieval
import scenes
import sheet
import testset
from scores import table


def read(path):
    return [json.loads(x) for x in path.read_text().splitlines()]


def write(path, lines):
    path.write_text("".join(json.dumps(x, ensure_ascii=False) + "\n" for x in lines))


def names():
    return [prompts.named(i) for i in range(len(prompts.catalog.things()))]


def part_of(folder, sets):
    """(expected lines, requests) of those sets."""
    expected = [e for e in read(folder / "expected.jsonl") if e["set"] in sets]
    ids = {id for e in expected for id in (e["id"], "shuffled-" + e["id"], e["blank"])}
    return expected, [r for r in read(folder / "tasks.jsonl") if r["id"] in ids]


def by_torch(model_folder, folder, out, threads, sets, batch=50):
    """Answers through transformers in f32, greedy."""
    import torch

    import model as pali
    torch.set_num_threads(threads)
    net, tokenizer = pali.load(model_folder)
    size = net.config["vision_config"]["image_size"]
    expected, requests = part_of(folder, sets)
    lines = []
    requests.sort(key=lambda r: r["task"])

    def pixels(part):
        images = [scenes.shrink(Image.open(folder / r["image"]).convert("RGB"), size) for r in part]
        return torch.from_numpy(np.stack([np.asarray(i) for i in images]))

    for i in range(0, len(requests), batch):
        part = requests[i:i + batch]
        ids = [tokenizer.encode(prompts.prompt(r["task"], r.get("lang", "EN"), r.get("question", ""),
                                               r.get("objects", "").split(prompts.SEPARATOR))) for r in part]
        for r, got in zip(part, net.answer(net.project(pixels(part)), ids, max(r["max_tokens"] for r in part)).tolist()):
            got = got[1:]
            got = got[:got.index(1)] if 1 in got else got[:r["max_tokens"]]
            lines.append({"id": r["id"], "text": tokenizer.decode(got)})
    singles, all_names = [e for e in expected if e["set"] == "classify"], names()
    with torch.no_grad():
        texts = net.text_tower(input_ids=torch.tensor([tokenizer.siglip(t) for t in all_names])).pooler_output
        texts = torch.nn.functional.normalize(texts, dim=-1)
        for i in range(0, len(singles), batch):
            pooled = net.see(pixels(singles[i:i + batch])).pooler_output
            best = (torch.nn.functional.normalize(pooled, dim=-1) @ texts.T).argmax(-1)
            lines += [{"id": e["id"], "text": all_names[int(b)]} for e, b in zip(singles[i:i + batch], best)]
    write(out, lines)


def by_engine(binary, model_folder, folder, out, options, sets):
    """Answers through `pali batch`, labels through `pali classify`."""
    expected, requests = part_of(folder, sets)
    asked = folder / "requests.jsonl"
    write(asked, requests)
    command = [str(binary), "batch", str(asked), "-o", str(out), "-m", str(model_folder), *options]
    print("$", " ".join(command), file=sys.stderr)
    if subprocess.run(command).returncode != 0:
        raise SystemExit(f"{binary} failed")
    lines = read(out)
    pictures = {e["id"]: e["image"] for e in expected if e["set"] == "classify"}
    if pictures:
        pictures["blank-classify"] = "images/blank.png"
    for id, picture in pictures.items():
        said = subprocess.run([str(binary), "classify", "-m", str(model_folder), *options, "--",
                               str(folder / picture), *names()], capture_output=True, text=True, check=True)
        lines.append({"id": id, "text": said.stdout.splitlines()[0].split("\t")[1]})
    write(out, lines)


def show(folder, name, title, sets):
    answers = {r["id"]: {**r, "text": r.get("text", "")} for r in read(folder / f"answers-{name}.jsonl")}
    print("\n" + table(answers, part_of(folder, sets)[0], title), flush=True)


def agreement(folder, a, b):
    one, two = ({r["id"]: r.get("text") for r in read(folder / f"answers-{n}.jsonl")} for n in (a, b))
    one = {k: v for k, v in one.items() if k in two}
    same = sum(one[k] == two[k] for k in one)
    print(f"\n{a} and {b} give the same text for {same} of {len(one)} requests ({100 * same / len(one):.2f} %)")
    for k in [k for k in one if one[k] != two[k]][:10]:
        print(f"  {k}: {one[k]!r} / {two[k]!r}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--scenes", type=Path, required=True, help="folder of the test scenes, made where missing")
    parser.add_argument("--count", type=int, default=600, help="scenes a set")
    parser.add_argument("--sets", nargs="+", choices=list(testset.SETS), default=list(testset.SETS), help="of which to answer the requests")
    parser.add_argument("--engine", type=Path, help="the pali binary; without it: torch")
    parser.add_argument("--options", default="", help="further options for pali, e.g. '--isa avx2'")
    parser.add_argument("--threads", type=int, default=2, help="of torch")
    parser.add_argument("--f32", action="store_true", help="the engine in f32 too, for its agreement with torch")
    parser.add_argument("--retrieval", action="store_true", help="with --engine: names of pictures and pictures of names in 12 languages too")
    parser.add_argument("--sheet", type=Path, help="PNG of 24 scenes with the engine's answers")
    args = parser.parse_args()
    testset.make(args.scenes, args.count)
    if args.engine:
        runs = [("engine", [])] + ([("engine-f32", ["--dtype", "f32"])] if args.f32 else [])
        for name, options in runs:
            by_engine(args.engine, args.model, args.scenes, args.scenes / f"answers-{name}.jsonl",
                      options + args.options.split(), args.sets)
            show(args.scenes, name, "C++ engine", args.sets)
        if args.f32:
            agreement(args.scenes, "engine-f32", "engine")
            if (args.scenes / "answers-torch.jsonl").exists():
                agreement(args.scenes, "torch", "engine-f32")
        if args.retrieval:
            singles = part_of(args.scenes, ["classify"])[0]
            print("\n" + retrieval.languages(args.engine, args.model, args.options.split(), args.scenes, singles), flush=True)
        if args.sheet:
            answers = {r["id"]: r.get("text", "") for r in read(args.scenes / "answers-engine.jsonl")}
            sheet.draw(args.scenes, answers, read(args.scenes / "expected.jsonl"), args.sheet)
    else:
        by_torch(args.model, args.scenes, args.scenes / "answers-torch.jsonl", args.threads, args.sets)
        show(args.scenes, "torch", "torch, f32", args.sets)


if __name__ == "__main__":
    main()
