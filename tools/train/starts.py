"""Where the mixture starts: what lies between a trained ViT and a language model that has not met it."""

import torch
import torch.nn.functional as F
from torch import nn

import catalog
from batches import LETTERS, PATCH, patch_labels, patch_places
from losses import placing


@torch.no_grad()
def start_language(net):
    """The decoder starts with identities in its cross-attention, so that what it looks at is what it tends to say."""
    for block in net.language_model.encoder.block:  # the visual tokens pass the encoder nearly as they are
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
            labels, _ = patch_labels(descriptions, pixels.shape[1] // PATCH)
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
def resemble(net, before, tokenizer, shards, rng, count=2048, place=3.0, letter=6.0):
    """Another ViT before a trained encoder-decoder: its projector, by least squares, gives what `before`
    gave; and where things are, along the directions that `before` uses least; and letters, each along the
    embedding of its piece."""
    seen, wanted, where = [], [], []
    table = net.language_model.shared.weight
    pieces = F.normalize(torch.stack([table[tokenizer.spell(x)[1]] for x in LETTERS]), dim=-1)
    for _ in range(count // 64):
        pixels, descriptions = shards.sample(rng, 64, 0.0)
        pixels, (labels, letters) = torch.from_numpy(pixels), patch_labels(descriptions, pixels.shape[1] // PATCH)
        places = patch_places(descriptions, labels)
        places[..., 2:] *= (labels > 0)[..., None]
        where.append(places.flatten(0, 1))
        seen.append(F.pad(net.see(pixels).last_hidden_state.flatten(0, 1), (0, 1), value=1.0))
        tokens = before.projector(before.see(pixels).last_hidden_state) + letters @ (letter * pieces)
        wanted.append(tokens.flatten(0, 1))
    seen, wanted, where = torch.cat(seen), torch.cat(wanted), torch.cat(where)
    least = torch.linalg.eigh(torch.cov(wanted.T)).eigenvectors[:, :where.shape[1]]  # ascending
    wanted += where @ (place * least.T)
    solved = torch.linalg.lstsq(seen, wanted).solution
    net.projector.weight.copy_(solved[:-1].T)
    net.projector.bias.copy_(solved[-1])
    left = (seen @ solved - wanted) @ least
    print(f"projector: {1 - float((seen @ solved - wanted).var() / wanted.var()):.3f} of the visual tokens explained, "
          f"{1 - float(left.var() / (place * where).var()):.3f} of the places", flush=True)
