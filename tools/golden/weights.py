"""Random weights of the tiny models: how they are drawn, rounded and compared."""

import copy
import math

import common

torch = common.setup_torch()


def generator(seed):
    return torch.Generator().manual_seed(seed)


def draw(shape, std, g):
    return torch.randn(*shape, generator=g) * std


def fill(model, g):
    """Random weights: linear layers by fan-in, norms around 1, tables and biases large enough to be seen."""
    tied = hasattr(model, "lm_head") and model.lm_head.weight is model.shared.weight
    for name, p in sorted(model.named_parameters()):
        leaf = name.rsplit(".", 2)
        owner = name.rsplit(".", 1)[0]
        if "layer_norm" in owner or "layernorm" in owner:
            p.copy_(1 + draw(p.shape, 0.15, g) if name.endswith("weight") else draw(p.shape, 0.15, g))
            if tied and name == "decoder.final_layer_norm.weight":
                p *= -3  # tied heads are scaled by d_model^-0.5: keep logits apart; negative: no token repeats itself
        elif name.endswith("relative_attention_bias.weight"):
            p.copy_(draw(p.shape, 2.0, g))
        elif owner.endswith("position_embedding"):
            p.copy_(draw(p.shape, 0.5, g))
        elif owner in ("shared", "lm_head") or owner.endswith("token_embedding"):
            p.copy_(draw(p.shape, 1.0, g))
        elif name.endswith("probe"):
            p.copy_(draw(p.shape, 1.0, g))
        elif name == "logit_scale":
            p.fill_(1.7)
        elif name == "logit_bias":
            p.fill_(-1.3)
        elif name.endswith("bias"):
            p.copy_(draw(p.shape, 0.1, g))
        elif p.dim() == 4:
            p.copy_(draw(p.shape, 1.5 / math.sqrt(p[0].numel()), g))
        else:
            std = 1.0 / math.sqrt(p.shape[-1])
            if leaf[-2] == "q" and ".SelfAttention." in name or leaf[-2] == "q" and "EncDec" in name:
                std *= 1.5 / math.sqrt(model.config.d_kv)  # T5 does not scale the scores
            if leaf[-2] in ("o", "wo"):
                std *= 2.0  # the layers, not the token just read, decide what comes next
            p.copy_(draw(p.shape, std, g))


def liven(table, rows, ids):
    """Rows outside `ids` are damped: a few dozen tokens, </s> among them, compete."""
    quiet = torch.ones(rows, dtype=torch.bool)
    quiet[ids] = False
    table[quiet] *= 0.25


def rounded(model, dtype):
    other = copy.deepcopy(model)
    for p in other.parameters():
        p.copy_(p.to(dtype).float())
    return other


def same_weights(a, b):
    x, y = a.state_dict(), b.state_dict()
    assert x.keys() == y.keys()
    for name in x:
        assert torch.equal(x[name], y[name]), name
