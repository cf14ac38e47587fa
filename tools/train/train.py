"""Trains the model by stages on scenes that bank.py puts together.

  --stage siglip   sigmoid contrastive loss between pictures and texts (paper's stage 0), with an auxiliary
                   loss that names what each patch shows (heads that are dropped afterwards);
                   on --keep patches of each picture, or with --freeze-vision on all
  --stage classify the same with the contrastive loss replaced by naming what the picture shows (for the
                   comparison of the two kinds of pretraining)
  --stage language UL2's denoising on lines of text, and the tasks over scenes told in symbols (symbols.py)
  --stage mixture  captions, questions, words and boxes through the whole model (stage 1), with the
                   contrastive loss kept at a small weight; --freeze-vision as in the paper (in either of the
                   two the ViT's pooling head still learns where the contrastive loss has a weight)
                   and, on a bank of 224 px and with everything learning, the paper's stage at a higher resolution

Learning rate: warm-up, then a cosine over --steps. A checkpoint every few minutes, written beside and renamed;
started again it goes on from the last one. Losses go to losses.csv, each step once (records.py). With the same seed,
threads and bank the losses are the same again: batches follow from (seed, step).
"""

import argparse
import csv
import json
import math
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn

import model as pali
from bank import Bank
from batches import LABELS, PLACES, SPOTS, Batches
from losses import compiled, losses, plain
from records import replaced, resumed
from symbols import Symbols, fit_projector, start_looking, start_matching, start_named, start_reading
from tokenizer import Tokenizer
from watch import watch, watch_scenes


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stage", choices=["siglip", "classify", "language", "mixture"], required=True)
    parser.add_argument("--data", type=Path, required=True, help="bank.py's pieces")
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="folder of this stage: checkpoints, losses.csv, export")
    parser.add_argument("--init", type=Path, help="checkpoint of the stage before, or the folder of an exported model; positions of another size are resized")
    parser.add_argument("--init-language", type=Path, help="checkpoint whose encoder-decoder the mixture starts from")
    parser.add_argument("--steps", type=int, required=True, help="length of the stage; the learning rate follows it")
    parser.add_argument("--stop", type=int, help="stop at this step already, to go on another time")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--warmup", type=int, default=200)
    parser.add_argument("--decay", type=float, default=0.02)
    parser.add_argument("--contrast", type=float, default=0.1, help="weight of the sigmoid loss (--stage classify: of the classes)")
    parser.add_argument("--patch", type=float, default=0.3, help="weight of the patch naming loss, 0: none")
    parser.add_argument("--letter", type=float, default=0.3, help="weight of letters within it")
    parser.add_argument("--tell", type=float, default=0.0, help="siglip: weight of projected tokens being the symbols of --init-language")
    parser.add_argument("--ul2", type=float, default=0.5, help="weight of the denoising loss")
    parser.add_argument("--keep", type=int, default=36, help="patches an image that the ViT learns from, those of things first")
    parser.add_argument("--single", type=float, default=0.0, help="share of one-thing scenes added at the start, fading out in a third of the time")
    parser.add_argument("--dense", type=float, default=0.0, help="share of scenes with three or four things")
    parser.add_argument("--english", type=float, default=0.4, help="share of captions asked for in English, beside the turns of all languages")
    parser.add_argument("--words", type=float, default=0.25, help="share of scenes with a word")
    parser.add_argument("--weights", type=json.loads, default={"caption": 1.0, "vqa": 0.5, "ocr": 0.5, "detect": 0.7})
    parser.add_argument("--start-reading", action="store_true", help="language: two heads start with their token's neighbours")
    parser.add_argument("--start-matching", action="store_true", help="language: the two others start with alike at alike")
    parser.add_argument("--freeze-vision", action="store_true")
    parser.add_argument("--f32", action="store_true", help="compute in f32, for CPUs without bf16 products")
    parser.add_argument("--compile", action="store_true", help="compile the transformers: about 1.3 times as fast")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--save-minutes", type=float, default=4)
    parser.add_argument("--watch", type=int, default=200, help="scenes of the running evaluation")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.set_flush_denormal(True)
    torch.manual_seed(args.seed)
    args.work.mkdir(parents=True, exist_ok=True)
    tokenizer = Tokenizer(args.tokenizer)
    bank = Bank(args.data)
    net = pali.Pali3(pali.mini(bank.side))
    width = pali.MINI["vision_config"]["hidden_size"]
    aux = nn.ModuleDict({"what": nn.Linear(width, LABELS), "letter": nn.Linear(width, SPOTS)})
    aux["where"] = nn.Linear(width, PLACES)
    aux["classes"] = nn.Linear(width, LABELS)
    nn.init.constant_(aux["classes"].bias, -5.0)
    aux["symbols"] = Symbols(pali.MINI["text_config"]["d_model"])
    nn.init.constant_(aux["letter"].bias, -5.0)
    print(pali.sizes(net), flush=True)
    both = nn.ModuleDict({"net": net, "aux": aux})
    if args.freeze_vision:
        net.vision_tower.requires_grad_(False)
        net.vision_tower.head.requires_grad_(args.contrast > 0)

    saved, step, spent = args.work / "checkpoint.pt", 0, 0.0
    state = torch.load(saved) if saved.exists() else None
    if state or args.init:  # a stage before may lack tables of this one
        both.load_state_dict(state["weights"] if state else pali.start(args.init, bank.side), strict=False)
    if args.init_language and not saved.exists():
        weights = torch.load(args.init_language)["weights"]
        kept = {k: v for k, v in weights.items() if k.startswith(("net.language_model.", "aux.symbols."))}
        both.load_state_dict(kept, strict=False)
        fit_projector(net, aux["symbols"], bank, np.random.default_rng(args.seed))
    if args.stage != "language":
        aux["symbols"].requires_grad_(False)
    else:
        net.vision_tower.requires_grad_(False)
        net.text_tower.requires_grad_(False)
        if not saved.exists():
            if not args.init:
                start_named(aux["symbols"], net, tokenizer)
                start_looking(net)
            if args.start_reading:
                start_reading(net)
            if args.start_matching:
                start_matching(net)
    # bf16 weights do the work (with --f32 f32 ones), f32 masters learn.
    names, live, masters = [], [], []
    for name, p in both.named_parameters():
        if p.requires_grad:
            names.append(name)
            live.append(p)
            masters.append(nn.Parameter(p.detach().float().clone()))
    both.to(torch.float32 if args.f32 else torch.bfloat16)
    groups = [{"params": [m for m in masters if m.ndim >= 2], "weight_decay": args.decay},
              {"params": [m for m in masters if m.ndim < 2], "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, lr=args.lr, betas=(0.9, 0.98), eps=1e-8, fused=True)
    if state:
        optimiser.load_state_dict(state["optimiser"])
        step, spent = state["step"], state["spent"]
        print(f"goes on at step {step}", flush=True)
    begun = time.time() - spent

    def save():
        weights = both.state_dict()
        weights = {k: v.float() if v.is_floating_point() else v for k, v in weights.items()}
        weights.update(zip(names, (m.detach() for m in masters)))
        weights = {k: (weights["net.language_model.shared.weight"] if k.startswith("net.language_model.") and
                       ("embed_tokens" in k or "lm_head" in k) else v) for k, v in weights.items()}
        with replaced(saved) as f:
            torch.save({"weights": weights, "optimiser": optimiser.state_dict(), "step": step,
                        "spent": time.time() - begun}, f)
        pali.export(net, args.tokenizer, args.work / "export")

    run = compiled() if args.compile else plain()
    batches = Batches(args, bank, tokenizer, step)
    batches.start()
    watched = watch_scenes(args.watch, bank.side) if args.watch and args.stage in ("language", "mixture") else None

    def look():
        if watched:
            print("watch", step, watch(net, aux["symbols"] if args.stage == "language" else None, tokenizer, *watched), flush=True)

    if args.stage == "mixture" and step == 0:
        look()
    log = resumed(args.work / "losses.csv", step)
    table = csv.writer(log)
    last_save, last_print, seen_images, sums, since = time.time(), time.time(), 0, {}, 0
    net.train()
    while step < min(args.steps, args.stop or args.steps):
        part = step / args.steps
        rate = args.lr * min(1, (step + 1) / args.warmup) * max(0.01, 0.5 * (1 + math.cos(math.pi * part)))
        for group in optimiser.param_groups:
            group["lr"] = rate
        batch = batches.queue.get()
        if isinstance(batch, BaseException):
            raise batch
        torch.manual_seed(args.seed * 1_000_003 + step)  # so that neither a pause nor a look changes what follows
        named = losses(net, aux, batch, args, run)
        total = sum(value * weight for value, weight in named.values())
        total.backward()
        for m, p in zip(masters, live):
            m.grad = None if p.grad is None else p.grad.float()
            p.grad = None
        norm = nn.utils.clip_grad_norm_(masters, 1.0)
        if torch.isfinite(norm):
            optimiser.step()
            with torch.no_grad():
                torch._foreach_copy_(live, masters)
        step += 1
        since += 1
        seen_images += len(batch["labels"])
        for k, (value, _) in named.items():
            sums.setdefault(k, []).append(float(value.detach()))
        if since >= 50:
            means = {k: round(sum(v) / len(v), 4) for k, v in sums.items()}
            speed = seen_images / (time.time() - last_print)
            for k, v in means.items():
                table.writerow([args.stage, step, round(time.time() - begun), f"{rate:.2e}", k, v])
            log.flush()
            print(f"{step} {100 * part:.0f} % {speed:.0f} images/s lr {rate:.1e} {means}", flush=True)
            sums, since, seen_images, last_print = {}, 0, 0, time.time()
        if time.time() - last_save > 60 * args.save_minutes:
            paused = time.time()
            save()
            look()
            last_save = time.time()
            last_print += last_save - paused  # a slow stage saves more often than it prints: its sums go on
    save()
    look()


if __name__ == "__main__":
    main()
