"""The tiny models once more in other containers: big_vision's .npz and PyTorch's pytorch_model.bin (tests/data/models).

The weights are those of the folders that `make_models.py` writes, so their goldens hold. Names and layouts of the .npz
follow big_vision's flax modules: [in, out] kernels with heads as an axis, layers of a scanned stack on axis 0.
"""

import json
import shutil

import common
import numpy as np
from folders import MODELS, reset, size

torch = common.setup_torch()

from safetensors.torch import load_file  # noqa: E402

SMALL_FILES = ("config.json", "generation_config.json", "tokenizer_config.json", "spiece.model", "tokenizer.model")


def as_numpy(tensor):
    """bf16 as big_vision's np.savez leaves it: two bytes of a void type."""
    if tensor.dtype == torch.bfloat16:
        return tensor.contiguous().view(torch.int16).numpy().view("V2")
    return tensor.contiguous().numpy()


def attention(state, theirs, q, k, v, o, heads):
    """Flax's MultiHeadDotProductAttention of [D, D] matrices and their biases, given as (weight, bias)."""
    out = {}
    for name, (weight, bias) in (("query", q), ("key", k), ("value", v)):
        width = weight.shape[1]
        out[f"{theirs}/{name}/kernel"] = weight.T.reshape(width, heads, -1)
        out[f"{theirs}/{name}/bias"] = bias.reshape(heads, -1)
    out[f"{theirs}/out/kernel"] = o[0].T.reshape(heads, -1, o[0].shape[0])
    out[f"{theirs}/out/bias"] = o[1]
    return out


def pair(state, name):
    return state[name + ".weight"], state[name + ".bias"]


def norm(state, theirs, name):
    weight, bias = pair(state, name)
    return {f"{theirs}/scale": weight, f"{theirs}/bias": bias}


def dense(state, theirs, name):
    weight, bias = pair(state, name)
    return {f"{theirs}/kernel": weight.T, f"{theirs}/bias": bias}


def vit_block(state, name, heads):
    a = name + ".self_attn."
    return (norm(state, "LayerNorm_0", name + ".layer_norm1") | norm(state, "LayerNorm_1", name + ".layer_norm2")
            | attention(state, "MultiHeadDotProductAttention_0", *(pair(state, a + p) for p in
                        ("q_proj", "k_proj", "v_proj", "out_proj")), heads)
            | dense(state, "MlpBlock_0/Dense_0", name + ".mlp.fc1")
            | dense(state, "MlpBlock_0/Dense_1", name + ".mlp.fc2"))


def stack(blocks, theirs, scanned):
    if scanned:
        return {f"{theirs}/{k}": torch.stack([b[k] for b in blocks]) for k in blocks[0]}
    return {f"{theirs}_{i}/{k}": v for i, b in enumerate(blocks) for k, v in b.items()}


def image_tower(state, prefix, config, scanned):
    layers, heads = config["num_hidden_layers"], config["num_attention_heads"]
    blocks = [vit_block(state, f"{prefix}encoder.layers.{i}", heads) for i in range(layers)]
    kernel, bias = pair(state, prefix + "embeddings.patch_embedding")
    return ({"img/embedding/kernel": kernel.permute(2, 3, 1, 0), "img/embedding/bias": bias,
             "img/pos_embedding": state[prefix + "embeddings.position_embedding.weight"][None]}
            | stack(blocks, "img/Transformer/encoderblock", scanned)
            | norm(state, "img/Transformer/encoder_norm", prefix + "post_layernorm"))


def siglip(state, config):
    vision, text = config["vision_config"], config["text_config"]
    out = image_tower(state, "vision_model.", vision, scanned=False)
    head = "vision_model.head."
    fused, bias = state[head + "attention.in_proj_weight"].chunk(3), state[head + "attention.in_proj_bias"].chunk(3)
    q, k, v = zip(fused, bias, strict=True)
    pooling = (attention(state, "MultiHeadDotProductAttention_0", q, k, v, pair(state, head + "attention.out_proj"),
                         vision["num_attention_heads"])
               | norm(state, "LayerNorm_0", head + "layernorm") | {"probe": state[head + "probe"]}
               | dense(state, "MlpBlock_0/Dense_0", head + "mlp.fc1")
               | dense(state, "MlpBlock_0/Dense_1", head + "mlp.fc2"))
    out |= {f"img/MAPHead_0/{k}": v for k, v in pooling.items()}
    blocks = [vit_block(state, f"text_model.encoder.layers.{i}", text["num_attention_heads"])
              for i in range(text["num_hidden_layers"])]
    out |= {"txt/Embed_0/embedding": state["text_model.embeddings.token_embedding.weight"],
            "txt/pos_embedding": state["text_model.embeddings.position_embedding.weight"][None]}
    out |= stack(blocks, "txt/Encoder_0/encoderblock", scanned=False)
    out |= norm(state, "txt/Encoder_0/encoder_norm", "text_model.final_layer_norm")
    out |= dense(state, "txt/head", "text_model.head")
    return out | {"t": state["logit_scale"], "b": state["logit_bias"]}


def gemma(state, prefix, config):
    heads, head = config["num_attention_heads"], config["head_dim"]
    kv = config["num_key_value_heads"]
    second = config["model_type"] == "gemma2"
    blocks = []
    for i in range(config["num_hidden_layers"]):
        own = {k.removeprefix(f"{prefix}layers.{i}."): v for k, v in state.items() if f"{prefix}layers.{i}." in k}
        a, m = "self_attn.{}_proj.weight", "mlp.{}_proj.weight"
        # [N, Hd, D] of the matrix's rows becomes [N, D, Hd].
        q = own[a.format("q")].reshape(heads, head, -1).permute(0, 2, 1)
        k, v = (own[a.format(n)].reshape(kv, head, -1).permute(0, 2, 1) for n in "kv")
        block = {"pre_attention_norm/scale": own["input_layernorm.weight"],
                 "attn/attn_vec_einsum/w": own[a.format("o")].T.reshape(heads, head, -1),
                 "mlp/gating_einsum": torch.stack([own[m.format("gate")].T, own[m.format("up")].T]),
                 "mlp/linear": own[m.format("down")].T}
        if kv == heads:
            block["attn/qkv_einsum/w"] = torch.stack([q, k, v])
        else:
            block |= {"attn/q_einsum/w": q, "attn/kv_einsum/w": torch.stack([k, v])}
        if second:
            block |= {"post_attention_norm/scale": own["post_attention_layernorm.weight"],
                      "pre_ffw_norm/scale": own["pre_feedforward_layernorm.weight"],
                      "post_ffw_norm/scale": own["post_feedforward_layernorm.weight"]}
        else:
            block["pre_ffw_norm/scale"] = own["post_attention_layernorm.weight"]
        blocks.append(block)
    out = {f"llm/layers/{k}": torch.stack([b[k] for b in blocks]) for k in blocks[0]}
    return out | {"llm/embedder/input_embedding": state[prefix + "embed_tokens.weight"],
                  "llm/final_norm/scale": state[prefix + "norm.weight"]}


def find_prefix(state, end):
    return next(k for k in state if k.endswith(end)).removesuffix(end)


def paligemma(state, config):
    out = image_tower(state, find_prefix(state, "embeddings.patch_embedding.weight"), config["vision_config"],
                      scanned=True)
    out |= dense(state, "img/head", find_prefix(state, "multi_modal_projector.linear.weight")
                 + "multi_modal_projector.linear")
    return out | gemma(state, find_prefix(state, "embed_tokens.weight"), config["text_config"])


def make_npz(source, target, file, convert, prefix, save):
    folder = MODELS / target
    reset(folder)
    state = load_file(str(MODELS / source / "model.safetensors"))
    arrays = convert(state, json.loads((MODELS / source / "config.json").read_text()))
    save(folder / file, **{prefix + k: as_numpy(v) for k, v in arrays.items()})
    for name in ("spiece.model", "tokenizer.model"):
        if (MODELS / source / name).exists():
            shutil.copy(MODELS / source / name, folder / name)
    common.write_json(folder / "golden.json", common.header("npz") | {"golden_of": source})
    common.log(f"model {target}: {size(folder)}")


def make_bin(source, target, shards):
    """torch.save of the state dict; one matrix is kept turned, as torch.load would give it back."""
    folder = MODELS / target
    reset(folder)
    for name in SMALL_FILES:
        if (MODELS / source / name).exists():
            shutil.copy(MODELS / source / name, folder / name)
    state = load_file(str(MODELS / source / "model.safetensors"))
    turned = next(k for k in sorted(state) if k.endswith(("wi_0.weight", "gate_proj.weight")))
    state[turned] = state[turned].T.contiguous().T
    names = sorted(state)
    if shards == 1:
        torch.save({n: state[n] for n in names}, folder / "pytorch_model.bin")
    else:
        step = -(-len(names) // shards)
        weight_map = {}
        for i in range(shards):
            file = f"pytorch_model-{i + 1:05d}-of-{shards:05d}.bin"
            run = names[i * step : (i + 1) * step]
            torch.save({n: state[n] for n in run}, folder / file)
            weight_map |= {n: file for n in run}
        index = {"metadata": {}, "weight_map": weight_map}
        (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index, indent=2) + "\n")
    common.write_json(folder / "golden.json", common.header("bin") | {"golden_of": source})
    common.log(f"model {target}: {size(folder)}")


def main():
    make_npz("siglip_two_tower", "siglip_npz", "webli_test_b16_48.npz", siglip, "params/", np.savez_compressed)
    make_bin("ul2_bf16", "ul2_bin", 1)
    make_bin("ul2_bf16", "ul2_bin_sharded", 2)
    make_npz("paligemma_bf16", "paligemma_npz", "paligemma-3b-pt-44.bf16.npz", paligemma, "", np.savez)
    make_npz("paligemma2_bf16", "paligemma2_npz", "paligemma2-3b-pt-44.b16.npz", paligemma, "params/",
             np.savez_compressed)
    make_bin("paligemma_bf16", "paligemma_bin", 1)
    make_bin("paligemma2_bf16", "paligemma2_bin", 2)


if __name__ == "__main__":
    main()
