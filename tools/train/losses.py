"""The losses of train.py's stages, from a batch of batches.py."""

import torch
import torch.nn.functional as F

from batches import WORD
from symbols import told
from tokenizer import PAD


def placing(read, places, labels):
    """How far places and boxes that are read from tokens are off."""
    off = (read.float() - places).square()
    return off[..., :2].mean() + off[..., 2:][(labels > 0) & (labels <= WORD)].mean()


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


def said(net, memory, mask, labels):
    """Cross-entropy of every token of the answers: (n, longest)."""
    shifted = F.pad(labels[:, :-1].clamp(min=0), (1, 0), value=PAD)
    hidden = net.language_model.decoder(input_ids=shifted, encoder_hidden_states=memory,
                                        encoder_attention_mask=mask).last_hidden_state
    hidden = hidden * net.language_model.config.d_model ** -0.5
    logits = F.linear(hidden, net.language_model.shared.weight).float()
    return F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none").view(labels.shape)


def answering(net, batch, args, visual):
    """The losses of the tasks, given the projected visual tokens of each image."""
    out = {}
    memory, mask = net.read(visual[batch["images"]], batch["prompts"], (batch["prompts"] != PAD).long())
    start = 0
    for task, labels, weights in batch["tasks"]:
        part = slice(start, start + len(labels))
        start += len(labels)
        each = said(net, memory[part], mask[part], labels)
        out[task] = ((each * weights).sum() / weights.sum(), args.weights[task])
    return out


def denoising(net, batch):
    """UL2's loss on lines of text."""
    mask = (batch["corrupted"] != PAD).long()
    memory = net.language_model.encoder(input_ids=batch["corrupted"], attention_mask=mask).last_hidden_state
    return said(net, memory, mask, batch["hidden"]).sum() / (batch["hidden"] >= 0).sum()


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
    order = (torch.rand(batch["labels"].shape) + ((batch["labels"] > 0) & (batch["labels"] <= WORD))).topk(keep, dim=1).indices
    row = torch.arange(len(order))[:, None]
    tokens = tower.post_layernorm(tower.encoder(inputs_embeds=tower.embeddings(x)[row, order]).last_hidden_state)
    return tokens, batch["labels"][row, order], batch["letters"][row, order], batch["places"][row, order]


def losses(net, aux, batch, args):
    """Named losses of one batch, each with its weight."""
    if args.stage == "vision":
        return naming(aux, *some_patches(net, batch, args.keep), args)
    if args.stage == "language":
        out = answering(net, batch, args, told(aux["symbols"], batch).to(net.projector.weight.dtype))
        return out | {"ul2": (denoising(net, batch), args.ul2)}
    with torch.no_grad() if args.freeze_vision else torch.enable_grad():
        tokens = net.see(batch["pixels"]).last_hidden_state
    out = {}
    if args.stage == "classify":
        out["classes"] = (classes(aux, net.vision_tower.head(tokens), batch["labels"]), args.contrast)
    elif args.contrast > 0:
        out["contrast"] = (contrast(net, net.vision_tower.head(tokens), batch["texts"], batch["same"]), args.contrast)
    if args.patch > 0:
        out.update(naming(aux, tokens, batch["labels"], batch["letters"], batch["places"], args))
    if args.stage == "mixture":
        out.update(answering(net, batch, args, net.projector(tokens)))
    return out
