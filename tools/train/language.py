"""The T5 encoder-decoder of a model as two functions for training, which torch.compile makes several times as fast.

The weights are those of transformers' T5ForConditionalGeneration and so are the results (but for rounding in bf16);
query, key and value are one product, and everything between products is fused. test_language.py compares them.
"""

import functools

import torch
import torch.nn.functional as F
from transformers.models.t5.modeling_t5 import T5Attention


def norm(x, layer):
    y = x.float()
    return (y * torch.rsqrt(y.square().mean(-1, keepdim=True) + layer.variance_epsilon)).to(x.dtype) * layer.weight


def heads(x, n):
    """(rows, length, n * heads * 64) -> n tensors (rows, heads, length, 64)."""
    return x.unflatten(-1, (n, -1, 64)).permute(2, 0, 3, 1, 4)


def mix(q, k, v, bias):
    """softmax(q k' + bias) v, as T5 does it: no scale."""
    scores = (q @ k.transpose(-1, -2)).float() + bias
    return (scores.softmax(-1).to(v.dtype) @ v).transpose(1, 2).flatten(2)


@functools.lru_cache(maxsize=None)
def buckets(length, both_ways):
    at = torch.arange(length)
    return T5Attention._relative_position_bucket(at[None, :] - at[:, None], both_ways, 32, 128)


def self_attention(block, x, bias):
    a, h = block.layer[0].SelfAttention, norm(x, block.layer[0].layer_norm)
    q, k, v = heads(F.linear(h, torch.cat([a.q.weight, a.k.weight, a.v.weight])), 3)
    return x + a.o(mix(q, k, v, bias))


def feed_forward(part, x):
    d, h = part.DenseReluDense, norm(x, part.layer_norm)
    gate, up = F.linear(h, torch.cat([d.wi_0.weight, d.wi_1.weight])).chunk(2, -1)
    return x + d.wo(F.silu(gate) * up)


def hidden_keys(mask):
    return (1.0 - mask[:, None, None].float()) * -1e9


def encode(stack, x, mask, bucket):
    """(rows, length, width) embedded inputs -> memory."""
    table = stack.block[0].layer[0].SelfAttention.relative_attention_bias.weight
    bias = table[bucket].permute(2, 0, 1)[None].float() + hidden_keys(mask)
    for block in stack.block:
        x = feed_forward(block.layer[1], self_attention(block, x, bias))
    return norm(x, stack.final_layer_norm)


def say(lm, memory, mask, labels, bucket):
    """Cross-entropy of every token of the answers (rows, length); 0 where the label is -100."""
    stack, table = lm.decoder, lm.shared.weight
    x = F.embedding(F.pad(labels[:, :-1].clamp(min=0), (1, 0)), table)
    length = labels.shape[1]
    bias = stack.block[0].layer[0].SelfAttention.relative_attention_bias.weight[bucket].permute(2, 0, 1)[None].float()
    bias = bias + torch.full((length, length), -1e9).triu(1)
    unseen = hidden_keys(mask)
    for block in stack.block:
        x = self_attention(block, x, bias)
        a, h = block.layer[1].EncDecAttention, norm(x, block.layer[1].layer_norm)
        k, v = heads(F.linear(memory, torch.cat([a.k.weight, a.v.weight])), 2)
        x = x + a.o(mix(heads(a.q(h), 1)[0], k, v, unseen))
        x = feed_forward(block.layer[2], x)
    hidden = norm(x, stack.final_layer_norm) * lm.config.d_model ** -0.5
    logits = F.linear(hidden, table).float()
    return F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none").view(labels.shape)
