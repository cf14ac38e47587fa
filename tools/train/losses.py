"""The losses of train.py's stages, from a batch of batches.py."""

import torch
import torch.nn.functional as F

import language
from batches import TASKS, WORD, waves
from symbols import told
from tokenizer import PAD
from vision import cut, tokens


def placing(read, places, labels):
    """How far places and boxes that are read from tokens are off."""
    off = (read.float() - waves(places)).square().unflatten(-1, (7, 6))
    return off[..., :2].mean() + off[..., 2:].transpose(-1, -2)[(labels > 0) & (labels <= WORD)].mean()


def contrast(net, pooled, texts, same):
    """SigLIP's sigmoid loss; pictures whose texts are equal are all positives."""
    zi = F.normalize(pooled.float(), dim=-1)
    zt = F.normalize(net.text_tower(input_ids=texts).pooler_output.float(), dim=-1)
    logits = zi @ zt.T * net.logit_scale.float().exp() + net.logit_bias.float()
    sign = same.float() * 2 - 1
    return -F.logsigmoid(sign * logits).sum() / len(texts)


def classes(aux, pooled, labels):
    """Which things, garments and colours a picture shows, each a yes or no: (n, t) patch labels are the truth."""
    shown = torch.zeros(len(labels), aux["classes"].out_features).scatter_(1, labels, 1.0)
    return F.binary_cross_entropy_with_logits(aux["classes"](pooled).float(), shown, reduction="sum") / len(labels)


def answering(net, batch, args, visual, run):
    """The losses of the tasks, given the projected visual tokens of each image."""
    asked, lm = batch["prompts"], net.language_model
    x = torch.cat([visual[batch["images"]], lm.shared(asked)], 1)
    mask = torch.cat([asked.new_ones(visual.shape[1]).expand(len(x), -1), (asked != PAD).long()], 1)
    memory = run["encode"](lm.encoder, x, mask, language.buckets(x.shape[1], True))
    start, missed, heard = 0, torch.zeros(len(TASKS)), torch.full((len(TASKS),), 1e-6)
    for task, labels, weights in batch["groups"]:
        part = slice(start, start + len(labels))
        start += len(labels)
        each = run["say"](lm, memory[part], mask[part], labels, language.buckets(labels.shape[1], False))
        missed = missed.index_add(0, task, (each * weights).sum(1))
        heard = heard.index_add(0, task, weights.sum(1))
    return {task: (missed[n] / heard[n], args.weights[task]) for n, task in enumerate(TASKS)}


def denoising(net, batch, run):
    """UL2's loss on lines of text."""
    lm, mask = net.language_model, (batch["corrupted"] != PAD).long()
    memory = run["encode"](lm.encoder, lm.shared(batch["corrupted"]), mask, language.buckets(mask.shape[1], True))
    each = run["say"](lm, memory, mask, batch["hidden"], language.buckets(batch["hidden"].shape[1], False))
    return each.sum() / (batch["hidden"] >= 0).sum()


def naming(aux, seen, labels, letters, places, args):
    """What each patch shows, which letters, where it is and the thing's box, from the ViT's tokens."""
    missed = F.binary_cross_entropy_with_logits(aux["letter"](seen).float(), letters, reduction="sum")
    return {"patch": (F.cross_entropy(aux["what"](seen).float().flatten(0, 1), labels.flatten()), args.patch),
            "letter": (missed / letters.sum().clamp(min=1), args.patch * args.letter),
            "where": (placing(aux["where"](seen), places, labels), args.patch)}


def telling(net, symbols, seen, truth):
    """How far projected tokens are from the symbols of what they show: the share of these symbols' variance."""
    with torch.no_grad():
        wanted = symbols(*truth).float()
    off = (net.projector(seen).float() - wanted).square().mean(-1)
    thing = (truth[0] > 0) & (truth[0] <= WORD)
    return (off[thing].mean() + 0.3 * off[~thing].mean()) / wanted.var()


def some(batch, keep):
    """The labels of that many patches of a scene, in order, those of things first."""
    shows = (batch["labels"] > 0) & (batch["labels"] <= WORD)
    order = (torch.rand(shows.shape) + shows).topk(keep, dim=1).indices.sort(1).values
    return {k: batch[k][torch.arange(len(order))[:, None], order] for k in ("labels", "letters", "places")}


def some_patches(net, run, batch, keep):
    """ViT tokens of the patches that show something and of others up to `keep`, with their labels."""
    shows = (batch["labels"] > 0) & (batch["labels"] <= WORD)
    order = (torch.rand(shows.shape) + shows).topk(keep, dim=1).indices
    row = torch.arange(len(order))[:, None]
    patches = cut(batch["pixels"], net.vision_tower.config.patch_size)
    return run["see"](net.vision_tower, patches, order), *(batch[k][row, order] for k in ("labels", "letters", "places"))


def plain():
    """The functions of the transformers; compiled() has them faster."""
    return {"see": tokens, "encode": language.encode, "say": language.say}


def compiled():
    return {name: torch.compile(part, dynamic=False) for name, part in plain().items()}


def losses(net, aux, batch, args, run):
    """Named losses of one batch, each with its weight."""
    if args.stage == "language":
        out = answering(net, batch, args, told(aux["symbols"], some(batch, args.keep)).to(net.projector.weight.dtype), run)
        return out | ({"ul2": (denoising(net, batch, run), args.ul2)} if args.ul2 > 0 else {})
    if args.freeze_vision or args.stage == "mixture":
        with torch.no_grad() if args.freeze_vision else torch.enable_grad():
            patches = cut(batch["pixels"], net.vision_tower.config.patch_size)
            seen = run["see"](net.vision_tower, patches, torch.arange(patches.shape[1]).expand(len(patches), -1))
        out, truth = {}, [batch[k] for k in ("labels", "letters", "places")]
    else:
        seen, *truth = some_patches(net, run, batch, args.keep)
        out = {}
    if args.stage == "classify":
        out["classes"] = (classes(aux, net.vision_tower.head(seen), batch["labels"]), args.contrast)
    elif args.contrast > 0:
        out["contrast"] = (contrast(net, net.vision_tower.head(seen), batch["texts"], batch["same"]), args.contrast)
    if args.tell > 0:
        out["tell"] = (telling(net, aux["symbols"], seen, truth), args.tell)
    if args.patch > 0:
        out.update(naming(aux, seen, *truth, args))
    if args.stage == "mixture":
        out.update(answering(net, batch, args, net.projector(seen), run))
    return out
