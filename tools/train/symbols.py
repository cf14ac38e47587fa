"""Scenes told in symbols: what stands for visual tokens while the language model has no eyes yet.

In `--stage language` the encoder-decoder learns the tasks from tables (a vector for what a patch shows, for each
letter, and for where things are) at no cost of a ViT; in `--stage mixture` the projector starts from the linear
map that turns the ViT's tokens into these vectors. The tables are dropped then.
"""

import torch
import torch.nn.functional as F
from torch import nn

import catalog
from batches import LABELS, PLACES, SPOTS, WORD, shown, waves


class Symbols(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.what = nn.Embedding(LABELS, width)
        self.letter = nn.Linear(SPOTS, width, bias=False)
        self.where = nn.Linear(PLACES, width, bias=False)
        nn.init.normal_(self.what.weight, std=0.3)
        nn.init.normal_(self.letter.weight, std=0.3)
        nn.init.normal_(self.where.weight, std=0.1)

    def forward(self, labels, letters, places):
        """labels (n, t), letters (n, t, 52), places (n, t, 6) -> (n, t, width); boxes only where there is a thing."""
        dtype = self.where.weight.dtype
        boxed = ((labels > 0) & (labels <= WORD))[..., None]
        seen = waves(places).unflatten(-1, (7, 6))
        seen = torch.cat([seen[..., :2], seen[..., 2:] * boxed[..., None]], -1).flatten(-2)
        return self.what(labels) + self.letter(letters.to(dtype)) + self.where(seen.to(dtype))


def told(symbols, batch):
    """The symbols of a batch as an unsure ViT would give them: in some scenes clear, in others with half of the names
    wrong, so that the language model learns to weigh what a thing's patches say together."""
    labels = batch["labels"]
    unsure = torch.rand(len(labels), 1)
    other = torch.where(torch.rand(labels.shape) < 0.5, torch.randint(LABELS, labels.shape), labels.roll(1, 0))
    labels = torch.where(torch.rand(labels.shape) < 0.5 * unsure.square(), other, labels)
    places = batch["places"] + 0.03 * torch.randn(batch["places"].shape)
    tokens = symbols(labels, batch["letters"], places)
    return tokens + (0.05 + 0.2 * unsure[..., None]).to(tokens.dtype) * torch.randn_like(tokens)


@torch.no_grad()
def start_named(symbols, net, tokenizer):
    """What a patch shows starts as the words for it in English."""
    words = ["", *catalog.named("en"), "word", *catalog.COLOURS, *catalog.GARMENTS]
    table = net.language_model.shared.weight
    for row, text in enumerate(words):
        if text:
            pieces = table[list(tokenizer.encode(text))[:-1]]
            symbols.what.weight[row].copy_(pieces.sum(0) / len(pieces) ** 0.5 + 0.1 * symbols.what.weight[row])


@torch.no_grad()
def start_looking(net):
    """The decoder starts with identities in its cross-attention, so that what it looks at is what it tends to say."""
    net.language_model.decoder.final_layer_norm.weight.fill_(3.0)  # the tied head could hardly be sure of a token otherwise
    for block in net.language_model.encoder.block:  # the visual tokens pass the encoder nearly as they are
        block.layer[0].SelfAttention.o.weight.mul_(0.1)
        block.layer[1].DenseReluDense.wo.weight.mul_(0.1)
    for block in net.language_model.decoder.block:
        attention = block.layer[1].EncDecAttention  # as wide inside as outside
        attention.v.weight.copy_(torch.eye(*attention.v.weight.shape))
        attention.o.weight.copy_(0.5 * torch.eye(*attention.o.weight.shape))


@torch.no_grad()
def start_reading(net):
    """Two of the encoder's heads start with the token before and the token after: letters stand in rows."""
    bias = net.language_model.encoder.block[0].layer[0].SelfAttention.relative_attention_bias.weight
    bias[1, 0] += 3.0  # T5's buckets: 1 is the token before, 17 the token after
    bias[17, 1] += 3.0


@torch.no_grad()
def start_matching(net):
    """The encoder's other two heads start in its first layer with alike looking at alike: patches of one thing at each
    other, and the words of a question at the patches of what they name. Keys and queries are one projection."""
    attention = net.language_model.encoder.block[0].layer[0].SelfAttention
    for head in (slice(128, 192), slice(192, 256)):
        alike = torch.linalg.qr(torch.randn(256, 64)).Q.T
        attention.q.weight[head].copy_(0.35 * alike)  # T5 does not scale: alike tokens score 0.35^2 * 64 = 8
        attention.k.weight[head].copy_(0.35 * alike)


def fit_projector(net, symbols, bank, rng, count=1536, steps=700):
    """Sets the projector to a linear map from the ViT's tokens to the symbols of what they show.

    Least squares alone, with things heavier than the ground, tells hardly one thing from another: there are more
    things than dimensions. So it goes on with the cross-entropy of the nearest symbol."""
    with torch.no_grad():
        seen, wanted, labels = [], [], []
        for _ in range(count // 64):
            pixels, descriptions = bank.sample(rng, 64, 0.0)
            truth = shown(descriptions, bank.side)
            seen.append(net.see(torch.from_numpy(pixels)).last_hidden_state.float().flatten(0, 1))
            wanted.append(symbols(**truth).float().flatten(0, 1))
            labels.append(truth["labels"].flatten())
        seen, wanted, labels = F.pad(torch.cat(seen), (0, 1), value=1.0), torch.cat(wanted), torch.cat(labels)
        thing = (labels > 0) & (labels <= WORD)
        heavy = torch.where(thing, 8.0, 1.0)[:, None] * seen
        start = torch.linalg.solve(heavy.T @ seen + 1e-3 * torch.eye(seen.shape[1]), heavy.T @ wanted)
        table = symbols.what.weight.float().clone()
        apart, spread = wanted - table[labels], (wanted - wanted.mean(0)).square().mean()
        two = thing.nonzero()[:, 0], (~thing).nonzero()[:, 0]
    learned, sure = nn.Parameter(start), nn.Parameter(torch.tensor(0.3))
    optimiser = torch.optim.Adam([learned, sure])
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = 3e-3 * (1 - step / steps)
        rows = torch.cat([kind[torch.randint(len(kind), (n,))] for kind, n in zip(two, (768, 256))])
        given = seen[rows] @ learned
        near = sure.exp() * ((given - apart[rows]) @ table.T - 0.5 * table.square().sum(1))
        loss = F.cross_entropy(near, labels[rows]) + (given - wanted[rows]).square().mean() / spread
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        net.projector.weight.copy_(learned[:-1].T)
        net.projector.bias.copy_(learned[-1])
        some = thing.nonzero()[:4096, 0]
        near = ((seen[some] @ learned - apart[some]) @ table.T - 0.5 * table.square().sum(1)).argmax(1)
        print(f"projector: the nearest symbol is right for {(near == labels[some]).float().mean():.3f} of the patches with things", flush=True)
