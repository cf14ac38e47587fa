"""The running evaluation of train.py: greedy answers of the model as it is, by torch. evaluate.py measures."""

import numpy as np
import torch

import prompts
import scenes
from batches import shown
from scores import iou
from symbols import told


def watch_scenes(count, size=112):
    """Scenes on which the training is watched: of the test kind, from seeds of their own."""
    made = [scenes.make(scenes.TEST_SEEDS + 900000 + i, test=True, side=224, garment_share=0.1) for i in range(count)]
    return torch.from_numpy(np.stack([np.asarray(scenes.shrink(i, size)) for i, _ in made])), [d for _, d in made]


@torch.no_grad()
@torch.compiler.set_stance("force_eager")  # generation has shapes of its own at every step
def watch(net, symbols, tokenizer, pixels, descriptions):
    """Shares of right answers on the watched scenes: over pixels, or over `symbols` of what they show."""
    net.eval()
    visual = told(symbols, shown(descriptions, pixels.shape[1])).to(net.projector.weight.dtype) if symbols else net.project(pixels)
    out = {}

    def run(task, asked, longest):
        right, by = [], {}
        for i in range(0, len(asked), 100):
            part = asked[i:i + 100]
            ids = net.answer(visual[[n for n, _, _, _ in part]], [tokenizer.encode(p) for _, p, _, _ in part], longest)
            for (n, _, answer, kind), got in zip(part, ids.tolist()):
                text = tokenizer.decode(got[1:])
                if task == "detect":
                    ok = text.split()[-1:] == answer.split()[-1:] and len(text.split()) >= 5 and all(
                        x.isdigit() for x in text.split()[:4]) and iou(
                        [int(x) for x in text.split()[:4]], [int(x) for x in answer.split()[:4]]) >= 0.5
                else:
                    ok = text.lower() == answer.lower()
                right.append(ok)
                by.setdefault(kind, []).append(ok)
        out[task] = round(100 * sum(right) / max(1, len(right)), 1)
        if len(by) > 1:
            out[task + "_by"] = {k: round(100 * sum(v) / len(v)) for k, v in by.items()}

    rng = np.random.default_rng(5)
    everything = list(enumerate(descriptions))
    run("caption", [(n, prompts.prompt("caption"), prompts.caption(s), len(s["objects"])) for n, s in everything if s["garment"] is None], 32)
    run("ocr", [(n, prompts.prompt("ocr"), s["word"], 0) for n, s in everything if s["word"]], 12)
    asked = []
    for n, s in everything:
        kind = prompts.QUESTION_TYPES[n % 7]
        found = prompts.questions(s, rng, kind)
        if found:
            asked.append((n, prompts.prompt("vqa", question=found[0]), found[1], kind))
    run("vqa", asked, 12)
    run("detect", [(n, prompts.prompt("detect", objects=[prompts.name(s["objects"][0][0])]),
                    prompts.boxes(s, [s["objects"][0][0]]), 0) for n, s in everything if s["objects"]][:100], 28)
    net.train()
    return out
