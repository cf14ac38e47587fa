"""Trains the model by stages on the shards that render.py writes.

  --stage siglip   sigmoid contrastive loss between pictures and texts (paper's stage 0), with an auxiliary
                   loss that names what each patch shows (heads that are dropped afterwards)
  --stage vision   the patch naming loss alone, on the patches of things and some others: fast
  --stage language the encoder-decoder alone learns the tasks on symbolic pictures: what each patch shows,
                   from a table, stands for the visual token (the tables are dropped afterwards)
  --stage mixture  captions, questions, words and boxes through the whole model (stage 1), with the
                   contrastive loss kept at a small weight; --freeze-vision as in the paper (in either of the
                   two the ViT's pooling head still learns where the contrastive loss has a weight)

Learning rate: warm-up, then a cosine to the deadline by the wall clock. A checkpoint every few minutes,
written beside and renamed; started again it goes on from the last one. Losses go to losses.csv.
"""

import argparse
import csv
import datetime
import json
import math
import queue
import threading
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

import catalog
import model as pali
import prompts
import scenes
from evaluate import iou
from tokenizer import EOS, PAD, Tokenizer

LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
GRID = 8


class Shards:
    """The scenes rendered so far; new shards are taken in as they appear."""

    def __init__(self, folder):
        self.folder, self.pixels, self.lines, self.next_look = Path(folder), [], [], 0.0

    def look(self):
        if time.time() < self.next_look:
            return
        self.next_look = time.time() + 20
        for path in sorted(self.folder.glob("*.npy"))[len(self.pixels):]:
            self.pixels.append(np.load(path, mmap_mode="r"))
            self.lines.append([json.loads(x) for x in path.with_suffix(".jsonl").read_text().splitlines()])

    def sample(self, rng, count, single):
        """count scenes; `single`: share that is taken from scenes with one thing only."""
        self.look()
        if not self.pixels:
            raise SystemExit(f"no shards in {self.folder}: run render.py first")
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


def patch_labels(descriptions):
    """What each patch shows: 0 nothing, 1 + thing, or the word; and which letters have their centre in it."""
    word = len(catalog.things()) + 1
    labels = np.zeros((len(descriptions), GRID, GRID), np.int64)
    letters = np.zeros((len(descriptions), GRID, GRID, len(LETTERS)), np.float32)
    at = (np.arange(GRID) + 0.5) / GRID
    for n, scene in enumerate(descriptions):
        for index, *b in sorted(scene["objects"], key=lambda o: -(o[3] - o[1]) * (o[4] - o[2])):
            labels[n][np.ix_((at > b[0]) & (at < b[2]), (at > b[1]) & (at < b[3]))] = index + 1
        if scene["word"]:
            b = scene["word_box"]
            y = min(GRID - 1, int((b[0] + b[2]) / 2 * GRID))
            labels[n, y, (at > b[1]) & (at < b[3])] = word
            for x, letter in scene["letters"]:
                if letter in LETTERS:
                    letters[n, y, min(GRID - 1, int(x * GRID)), LETTERS.index(letter)] = 1
    return torch.from_numpy(labels).flatten(1), torch.from_numpy(letters).flatten(1, 2)


def patch_places(descriptions, labels):
    """Where each patch is (x, y) and the box of the thing that it shows: ymin, xmin, ymax, xmax, all -1..1."""
    at = (torch.arange(GRID) + 0.5) / GRID
    out = torch.zeros(len(descriptions), GRID * GRID, 6)
    out[..., 0], out[..., 1] = at.repeat(GRID), at.repeat_interleave(GRID)
    for n, scene in enumerate(descriptions):
        for index, *box in scene["objects"]:
            out[n, labels[n] == index + 1, 2:] = torch.tensor(box)
        if scene["word"]:
            out[n, labels[n] == len(catalog.things()) + 1, 2:] = torch.tensor(scene["word_box"])
    return out * 2 - 1


def placing(read, places, labels):
    """How far places and boxes that are read from tokens are off."""
    off = (read.float() - places).square()
    return off[..., :2].mean() + off[..., 2:][labels > 0].mean()


def contrastive_text(scene, rng):
    text = prompts.caption(scene)
    return scene["word"] if scene["word"] and not scene["objects"] else text


def rows(ids, value):
    width = max(len(r) for r in ids)
    return torch.tensor([list(r) + [value] * (width - len(r)) for r in ids])


def ask(descriptions, tokenizer, rng, share):
    """Prompts and answers about the images: {task: (image numbers, prompts, answers)}."""
    out = {task: ([], [], []) for task in ("caption", "vqa", "ocr", "detect")}

    def add(task, n, prompt, answer):
        for part, value in zip(out[task], (n, tokenizer.encode(prompt), answer)):
            part.append(value)

    for n, scene in enumerate(descriptions):
        if rng.random() < share["caption"]:
            add("caption", n, prompts.prompt("caption"), tokenizer.encode(prompts.caption(scene)))
        if rng.random() < share["vqa"]:
            kind = prompts.QUESTION_TYPES[int(rng.choice(6, p=(0.3, 0.12, 0.1, 0.2, 0.18, 0.1)))]
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
    """Prepares batches beside the training."""

    def __init__(self, args, tokenizer, seed):
        super().__init__(daemon=True)
        self.args, self.tokenizer, self.rng = args, tokenizer, np.random.default_rng(seed)
        self.shards, self.queue, self.single = Shards(args.data), queue.Queue(4), 0.0

    def run(self):
        try:
            while True:
                self.queue.put(self.make())
        except BaseException as error:  # handed to the training, which stops
            self.queue.put(error)

    def make(self):
        pixels, descriptions = self.shards.sample(self.rng, self.args.batch, self.single)
        labels, letters = patch_labels(descriptions)
        texts = [contrastive_text(s, self.rng) for s in descriptions]
        same = torch.tensor([[a == b for b in texts] for a in texts])
        places = patch_places(descriptions, labels)
        batch = {"places": places, "pixels": torch.from_numpy(pixels), "labels": labels, "letters": letters, "same": same,
                 "texts": torch.tensor([self.tokenizer.siglip(t) for t in texts])}
        if self.args.stage in ("mixture", "language"):
            asked = ask(descriptions, self.tokenizer, self.rng, self.args.shares)
            order = [t for t in asked if asked[t][0]]
            batch["images"] = torch.tensor([n for t in order for n in asked[t][0]])
            batch["prompts"] = rows([p for t in order for p in asked[t][1]], PAD)
            batch["tasks"] = [(t, len(asked[t][0]), rows(asked[t][2], -100)) for t in order]
        return batch


def contrast(net, pooled, texts, same):
    """SigLIP's sigmoid loss; pictures whose texts are equal are all positives."""
    zi = F.normalize(pooled.float(), dim=-1)
    zt = F.normalize(net.text_tower(input_ids=texts).pooler_output.float(), dim=-1)
    logits = zi @ zt.T * net.logit_scale.float().exp() + net.logit_bias.float()
    sign = same.float() * 2 - 1
    return -F.logsigmoid(sign * logits).sum() / len(texts)


def symbols(aux, labels, letters):
    """Symbolic visual tokens: what a patch shows, which letters, and where it is."""
    return aux["symbol"](labels) + letters.to(aux["spell"].weight.dtype) @ aux["spell"].weight + aux["place"].weight


@torch.no_grad()
def start_symbols(net, aux, tokenizer):
    """The symbol of a thing starts as the embedding of its name: and the decoder
    starts with identities in its cross-attention, so that what it looks at is what it tends to say."""
    table = net.language_model.shared.weight
    aux["symbol"].weight[1:] = name_table(net, tokenizer)
    for index, letter in enumerate(LETTERS):
        aux["spell"].weight[index] = table[tokenizer.spell(letter)[1]]
    for block in net.language_model.encoder.block:  # the names pass the encoder nearly as they are
        block.layer[0].SelfAttention.o.weight.mul_(0.1)
        block.layer[1].DenseReluDense.wo.weight.mul_(0.1)
    for block in net.language_model.decoder.block:
        attention = block.layer[1].EncDecAttention  # as wide inside as outside
        attention.v.weight.copy_(torch.eye(*attention.v.weight.shape))
        attention.o.weight.copy_(0.5 * torch.eye(*attention.o.weight.shape))


def name_table(net, tokenizer):
    """The embedding of each thing's name (the mean of its pieces), then of 'word'."""
    table = net.language_model.shared.weight
    return torch.stack([table[list(tokenizer.encode(text)[:-1])].mean(0)
                        for text in [name for _, name, _ in catalog.things()] + ["word"]])


def fit_projector(net, tokenizer, shards, rng, count=1536, steps=300):
    """Turns the projector so that the visual token of a thing points at the embedding of its name.

    The encoder-decoder then sees words that it knows: what is left to learn is where to look.
    """
    tokens, wanted, where = [], [], []
    with torch.no_grad():
        names = F.normalize(name_table(net, tokenizer).float(), dim=-1)
        names = torch.cat([F.normalize(torch.randn(1, names.shape[1]), dim=-1), names])  # first: nothing
        for _ in range(count // 64):
            pixels, descriptions = shards.sample(rng, 64, 0.0)
            labels, _ = patch_labels(descriptions)
            seen = net.see(torch.from_numpy(pixels)).last_hidden_state.float()
            keep = (labels > 0) | (torch.rand(labels.shape) < 0.2)
            tokens.append(seen[keep])
            wanted.append(labels[keep])
            where.append(patch_places(descriptions, labels)[keep])
    tokens, wanted, where = torch.cat(tokens), torch.cat(wanted), torch.cat(where)
    reader = nn.Linear(names.shape[1], 6)  # places must come through the projector too
    optimiser = torch.optim.Adam([*net.projector.parameters(), *reader.parameters()], lr=5e-3)
    for step in range(steps):
        some = torch.randint(len(tokens), (2048,))
        projected = net.projector(tokens[some])
        loss = F.cross_entropy(projected @ names.T * 2.0, wanted[some]) + 0.02 * projected.square().sum(-1).mean()
        loss = loss + 3 * placing(reader(projected), where[some], wanted[some])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        right = (net.projector(tokens) @ names.T).argmax(-1) == wanted
        off = placing(reader(net.projector(tokens)), where, wanted)
        print(f"projector: places off by {float(off):.3f}, {float(right[wanted > 0].float().mean()):.3f} of the patches with something point at its name, "
              f"deviation {float(net.projector(tokens).std()):.2f}", flush=True)


@torch.no_grad()
def resemble(net, before, shards, rng, count=1536):
    """Another ViT before a trained encoder-decoder: its projector, by least squares, gives what `before` gave."""
    seen, wanted = [], []
    for _ in range(count // 64):
        pixels = torch.from_numpy(shards.sample(rng, 64, 0.0)[0])
        tokens = net.see(pixels).last_hidden_state.flatten(0, 1)
        seen.append(F.pad(tokens, (0, 1), value=1.0))
        wanted.append(before.projector(before.see(pixels).last_hidden_state).flatten(0, 1))
    seen, wanted = torch.cat(seen), torch.cat(wanted)
    solved = torch.linalg.lstsq(seen, wanted).solution
    net.projector.weight.copy_(solved[:-1].T)
    net.projector.bias.copy_(solved[-1])
    print(f"projector: {1 - float((seen @ solved - wanted).var() / wanted.var()):.3f} of the visual tokens explained",
          flush=True)


def answering(net, batch, args, visual):
    """The losses of the tasks, given the projected visual tokens of each image."""
    out = {}
    memory, mask = net.read(visual[batch["images"]], batch["prompts"], (batch["prompts"] != PAD).long())
    start = 0
    for task, count, labels in batch["tasks"]:
        part = slice(start, start + count)
        start += count
        shifted = F.pad(labels[:, :-1].clamp(min=0), (1, 0), value=PAD)
        hidden = net.language_model.decoder(input_ids=shifted, encoder_hidden_states=memory[part],
                                            encoder_attention_mask=mask[part]).last_hidden_state
        hidden = hidden * net.language_model.config.d_model ** -0.5
        logits = F.linear(hidden, net.language_model.shared.weight).float()
        out[task] = (F.cross_entropy(logits.flatten(0, 1), labels.flatten()), args.weights[task])
    return out


def naming(aux, tokens, labels, letters, places, args):
    """What each patch shows, which letters, where it is and the thing's box, from the ViT's tokens."""
    missed = F.binary_cross_entropy_with_logits(aux["letter"](tokens).float(), letters, reduction="sum")
    return {"patch": (F.cross_entropy(aux["what"](tokens).float().flatten(0, 1), labels.flatten()), args.patch),
            "letter": (missed / letters.sum().clamp(min=1), args.patch * args.letter),
            "where": (placing(aux["where"](tokens), places, labels), args.patch)}


def some_patches(net, batch, keep):
    """ViT tokens of the patches that show something and of others up to `keep`, with their labels."""
    x = (batch["pixels"].permute(0, 3, 1, 2).float() / 127.5 - 1).to(net.projector.weight.dtype)
    tower = net.vision_tower
    order = (torch.rand(batch["labels"].shape) + (batch["labels"] > 0)).topk(keep, dim=1).indices
    row = torch.arange(len(order))[:, None]
    tokens = tower.post_layernorm(tower.encoder(inputs_embeds=tower.embeddings(x)[row, order]).last_hidden_state)
    return tokens, batch["labels"][row, order], batch["letters"][row, order], batch["places"][row, order]


def losses(net, aux, batch, args):
    """Named losses of one batch, each with its weight."""
    if args.stage == "vision":
        return naming(aux, *some_patches(net, batch, args.keep), args)
    if args.stage == "language":
        return answering(net, batch, args, symbols(aux, batch["labels"], batch["letters"]))
    with torch.no_grad() if args.freeze_vision else torch.enable_grad():
        tokens = net.see(batch["pixels"]).last_hidden_state
    out = {}
    if args.contrast > 0:
        out["contrast"] = (contrast(net, net.vision_tower.head(tokens), batch["texts"], batch["same"]), args.contrast)
    if args.patch > 0:
        out.update(naming(aux, tokens, batch["labels"], batch["letters"], batch["places"], args))
    if args.stage == "mixture":
        visual = net.projector(tokens)
        out.update(answering(net, batch, args, visual))
        if args.align_now > 0:
            with torch.no_grad():
                target = symbols(aux, batch["labels"], batch["letters"]).float()
            out["align"] = (F.mse_loss(visual.float(), target) / target.var(), args.align_now)
    return out


def watch_scenes(count, size=112):
    """Scenes on which the training is watched: of the test kind, from seeds of their own."""
    made = [scenes.make(scenes.TEST_SEEDS + 900000 + i, test=True, side=224) for i in range(count)]
    return torch.from_numpy(np.stack([np.asarray(scenes.shrink(i, size)) for i, _ in made])), [d for _, d in made]



@torch.compiler.set_stance("force_eager")  # generation has shapes of its own at every step
def watch(net, tokenizer, pixels, descriptions):
    """Shares of right answers on the watched scenes."""
    net.eval()
    out = {}

    def run(task, asked, longest):
        right, by = [], {}
        for i in range(0, len(asked), 100):
            part = asked[i:i + 100]
            ids = net.answer(pixels[[n for n, _, _, _ in part]], [tokenizer.encode(p) for _, p, _, _ in part], longest)
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
    run("caption", [(n, prompts.prompt("caption"), prompts.caption(s), len(s["objects"])) for n, s in everything], 24)
    run("ocr", [(n, prompts.prompt("ocr"), s["word"], 0) for n, s in everything if s["word"]], 12)
    asked = []
    for n, s in everything:
        kind = prompts.QUESTION_TYPES[n % 6]
        found = prompts.questions(s, rng, kind)
        if found:
            asked.append((n, prompts.prompt("vqa", question=found[0]), found[1], kind))
    run("vqa", asked, 12)
    run("detect", [(n, prompts.prompt("detect", objects=[prompts.name(s["objects"][0][0])]),
                    prompts.boxes(s, [s["objects"][0][0]]), 0) for n, s in everything if s["objects"]][:100], 28)
    net.train()
    return out


def deadline_of(text):
    """'HH:MM' (UTC, the next one) or minutes from now ('+45')."""
    now = datetime.datetime.now(datetime.timezone.utc)
    if text.startswith("+"):
        return time.time() + 60 * float(text[1:])
    hour, minute = map(int, text.split(":"))
    at = now.replace(hour=hour, minute=minute, second=0, microsecond=0)
    return (at if at > now else at + datetime.timedelta(days=1)).timestamp()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stage", choices=["siglip", "vision", "language", "mixture"], required=True)
    parser.add_argument("--data", type=Path, required=True, help="folder of render.py's shards")
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="folder of this stage: checkpoints, losses.csv, export")
    parser.add_argument("--init", type=Path, help="checkpoint of the stage before")
    parser.add_argument("--init-language", type=Path, help="checkpoint of --stage language")
    parser.add_argument("--keep-language", action="store_true",
                        help="--init-language is of --stage mixture: go on with it behind another ViT")
    parser.add_argument("--deadline", required=True, help="HH:MM in UTC or +minutes")
    parser.add_argument("--steps", type=int, default=10**9, help="stop after so many steps (reproducible runs)")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--warmup", type=int, default=200)
    parser.add_argument("--decay", type=float, default=0.02)
    parser.add_argument("--contrast", type=float, default=0.1, help="weight of the sigmoid loss")
    parser.add_argument("--patch", type=float, default=0.3, help="weight of the patch naming loss, 0: none")
    parser.add_argument("--letter", type=float, default=0.3, help="weight of letters within it")
    parser.add_argument("--keep", type=int, default=36, help="patches an image in --stage vision")
    parser.add_argument("--align", type=float, default=0.0, help="weight at the start of drawing visual tokens to the symbolic ones, fading out in half of the time")
    parser.add_argument("--single", type=float, default=0.0, help="share of one-thing scenes added at the start, fading out in a third of the time")
    parser.add_argument("--shares", type=json.loads, default={"caption": 0.8, "vqa": 0.8, "ocr": 0.8, "detect": 0.4})
    parser.add_argument("--weights", type=json.loads, default={"caption": 1.0, "vqa": 0.5, "ocr": 0.5, "detect": 0.7})
    parser.add_argument("--freeze-vision", action="store_true")
    parser.add_argument("--compile", action="store_true", help="compile the encoder and the decoder: about 1.4 times as fast")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--save-minutes", type=float, default=4)
    parser.add_argument("--watch", type=int, default=200, help="scenes of the running evaluation")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    args.work.mkdir(parents=True, exist_ok=True)
    tokenizer = Tokenizer(args.tokenizer)
    net = pali.Pali3(pali.MINI)
    width = pali.MINI["vision_config"]["hidden_size"]
    aux = nn.ModuleDict({"what": nn.Linear(width, len(catalog.things()) + 2), "letter": nn.Linear(width, len(LETTERS))})
    aux["where"] = nn.Linear(width, 6)
    nn.init.constant_(aux["letter"].bias, -5.0)
    inner = pali.MINI["text_config"]["d_model"]
    aux["symbol"] = nn.Embedding(len(catalog.things()) + 2, inner)
    aux["spell"], aux["place"] = nn.Embedding(len(LETTERS), inner), nn.Embedding(GRID * GRID, inner)
    for table in ("symbol", "spell", "place"):
        nn.init.normal_(aux[table].weight, std=0.3)
    print(pali.sizes(net), flush=True)
    both = nn.ModuleDict({"net": net, "aux": aux})
    if args.freeze_vision:
        net.vision_tower.requires_grad_(False)
        net.vision_tower.head.requires_grad_(args.contrast > 0)

    saved, step, begun = args.work / "checkpoint.pt", 0, time.time()
    state = torch.load(saved if saved.exists() else args.init) if saved.exists() or args.init else None
    if state:
        both.load_state_dict(state["weights"], strict=False)  # a stage before may lack tables of this one
    if args.init_language and not saved.exists():
        part = ("net.language_model.", "aux.symbol.", "aux.spell.", "aux.place.")
        weights = torch.load(args.init_language)["weights"]
        both.load_state_dict({k: v for k, v in weights.items() if k.startswith(part)}, strict=False)
        shards, rng = Shards(args.data), np.random.default_rng(args.seed)
        if args.keep_language:
            before = pali.Pali3(pali.MINI)
            before.load_state_dict({k[4:]: v for k, v in weights.items() if k.startswith("net.")}, strict=False)
            resemble(net, before, shards, rng)
        else:
            start_symbols(net, aux, tokenizer)
            fit_projector(net, tokenizer, shards, rng)
    if args.stage == "language" and not saved.exists():
        start_symbols(net, aux, tokenizer)
    # bf16 weights do the work, f32 masters learn.
    names, live, masters = [], [], []
    for name, p in both.named_parameters():
        if p.requires_grad:
            names.append(name)
            live.append(p)
            masters.append(nn.Parameter(p.detach().float().clone()))
    both.to(torch.bfloat16)
    groups = [{"params": [m for m in masters if m.ndim >= 2], "weight_decay": args.decay},
              {"params": [m for m in masters if m.ndim < 2], "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, lr=args.lr, betas=(0.9, 0.98), eps=1e-8, fused=True)
    if saved.exists():
        optimiser.load_state_dict(state["optimiser"])
        step, begun = state["step"], state["begun"]
        print(f"goes on at step {step}", flush=True)
    deadline = deadline_of(args.deadline)

    def save():
        weights = both.state_dict()
        weights = {k: v.float() if v.is_floating_point() else v for k, v in weights.items()}
        weights.update(zip(names, (m.detach() for m in masters)))
        weights = {k: (weights["net.language_model.shared.weight"] if k.startswith("net.language_model.") and
                       ("embed_tokens" in k or "lm_head" in k) else v) for k, v in weights.items()}
        part = saved.with_suffix(".part")
        torch.save({"weights": weights, "optimiser": optimiser.state_dict(), "step": step, "begun": begun}, part)
        part.rename(saved)
        pali.export(net, args.tokenizer, args.work / "export")

    if args.compile:
        net.language_model.encoder.compile(dynamic=True)
        net.language_model.decoder.compile(dynamic=True)
    batches = Batches(args, tokenizer, [args.seed, step])
    batches.single = args.single
    batches.start()
    watched = watch_scenes(args.watch) if args.stage == "mixture" else None
    log = open(args.work / "losses.csv", "a", newline="")
    table = csv.writer(log)
    last_save, last_print, seen_images, sums, since = time.time(), time.time(), 0, {}, 0
    net.train()
    while True:
        now = time.time()
        part = (now - begun) / (deadline - begun)
        if part >= 1 or step >= args.steps:
            break
        rate = args.lr * min(1, (step + 1) / args.warmup) * max(0.01, 0.5 * (1 + math.cos(math.pi * part)))
        for group in optimiser.param_groups:
            group["lr"] = rate
        batches.single = args.single * max(0.0, 1 - 3 * part)
        args.align_now = args.align * max(0.0, 1 - 2 * part)
        batch = batches.queue.get()
        if isinstance(batch, BaseException):
            raise batch
        named = losses(net, aux, batch, args)
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
        seen_images += len(batch["pixels"])
        for k, (value, _) in named.items():
            sums.setdefault(k, []).append(float(value.detach()))
        if since >= 50:
            means = {k: round(sum(v) / len(v), 4) for k, v in sums.items()}
            speed = seen_images / (time.time() - last_print)
            for k, v in means.items():
                table.writerow([args.stage, step, round(time.time() - begun), f"{rate:.2e}", k, v])
            log.flush()
            print(f"{step} {100 * part:.0f} % {speed:.0f} images/s {len(batches.shards.pixels)} shards lr {rate:.1e} {means}", flush=True)
            sums, since, seen_images, last_print = {}, 0, 0, time.time()
        if time.time() - last_save > 60 * args.save_minutes:
            save()
            if watched:
                print("watch", step, watch(net, tokenizer, *watched), flush=True)
            last_save = last_print = time.time()
            since, sums, seen_images = 0, {}, 0
    save()
    if watched:
        print("watch", step, watch(net, tokenizer, *watched), flush=True)


if __name__ == "__main__":
    main()
