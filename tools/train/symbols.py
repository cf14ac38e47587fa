"""Scenes told in symbols: what stands for visual tokens while the language model has no eyes yet.

In `--stage language` the encoder-decoder learns the tasks from tables (a vector for what a patch shows, for each
letter, and for where things are) at no cost of a ViT; in `--stage mixture` the projector starts from the linear
map that turns the ViT's tokens into these vectors. The tables are dropped then.
"""

import torch
import torch.nn.functional as F
from torch import nn

from batches import LABELS, LETTERS, PATCH, WORD, patch_labels, patch_places


class Symbols(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.what = nn.Embedding(LABELS, width)
        self.letter = nn.Linear(len(LETTERS), width, bias=False)
        self.where = nn.Linear(6, width, bias=False)
        nn.init.normal_(self.what.weight, std=0.3)
        nn.init.normal_(self.letter.weight, std=0.3)
        nn.init.normal_(self.where.weight, std=0.3)

    def forward(self, labels, letters, places):
        """labels (n, t), letters (n, t, 52), places (n, t, 6) -> (n, t, width); boxes only where there is a thing."""
        dtype = self.where.weight.dtype
        boxed = ((labels > 0) & (labels <= WORD))[..., None]
        places = torch.cat([places[..., :2], places[..., 2:] * boxed], -1)
        return self.what(labels) + self.letter(letters.to(dtype)) + self.where(places.to(dtype))


def told(symbols, batch, noise=0.12, wrong=0.04):
    """The symbols of a batch as an unsure ViT would give them."""
    labels = batch["labels"]
    labels = torch.where(torch.rand(labels.shape) < wrong, torch.randint(LABELS, labels.shape), labels)
    places = batch["places"] + 0.03 * torch.randn(batch["places"].shape)
    tokens = symbols(labels, batch["letters"], places)
    return tokens + noise * torch.randn_like(tokens)


@torch.no_grad()
def start_looking(net):
    """The decoder starts with identities in its cross-attention, so that what it looks at is what it tends to say."""
    for block in net.language_model.encoder.block:  # the visual tokens pass the encoder nearly as they are
        block.layer[0].SelfAttention.o.weight.mul_(0.1)
        block.layer[1].DenseReluDense.wo.weight.mul_(0.1)
    for block in net.language_model.decoder.block:
        attention = block.layer[1].EncDecAttention  # as wide inside as outside
        attention.v.weight.copy_(torch.eye(*attention.v.weight.shape))
        attention.o.weight.copy_(0.5 * torch.eye(*attention.o.weight.shape))


@torch.no_grad()
def fit_projector(net, symbols, shards, rng, count=4096):
    """Sets the projector to the least-squares map from the ViT's tokens to the symbols of what they show."""
    width = net.vision_tower.config.hidden_size + 1
    gram, cross, total = torch.zeros(width, width), None, 0.0
    for _ in range(count // 64):
        pixels, descriptions = shards.sample(rng, 64, 0.0)
        labels, letters = patch_labels(descriptions, pixels.shape[1] // PATCH)
        wanted = symbols(labels, letters, patch_places(descriptions, labels)).float().flatten(0, 1)
        seen = F.pad(net.see(torch.from_numpy(pixels)).last_hidden_state.float().flatten(0, 1), (0, 1), value=1.0)
        gram += seen.T @ seen
        cross = seen.T @ wanted if cross is None else cross + seen.T @ wanted
        total += float((wanted - wanted.mean(0)).square().sum())
        last = seen, wanted
    solved = torch.linalg.solve(gram + 1e-3 * torch.eye(width), cross)
    net.projector.weight.copy_(solved[:-1].T)
    net.projector.bias.copy_(solved[-1])
    seen, wanted = last
    left = (seen @ solved - wanted).square().sum() / (wanted - wanted.mean(0)).square().sum()
    print(f"projector: {1 - float(left):.3f} of the symbols explained", flush=True)
