"""PaliGemma 1 and 2: a SigLIP vision tower, a linear projector, and Gemma 1 or 2 under the prefix-LM mask."""

import math

import common
import make_tokenizers
from folders import IMAGES, MODELS, reload, reset, rewrite_config, size, write_preprocessor
from generation import STEPS, check_clear, generation_goldens, search, teacher_forced
from stages import pixels_of, vision_stages
from weights import draw, fill, generator, liven, same_weights

torch = common.setup_torch()

import transformers as tf  # noqa: E402
from PIL import Image, ImageOps  # noqa: E402
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil  # noqa: E402

VISION = dict(model_type="siglip_vision_model", hidden_size=24, intermediate_size=44, num_hidden_layers=2,
              num_attention_heads=3, image_size=44, patch_size=14, vision_use_head=False)
# Head widths that are not width / heads; a window shorter than every prefix, and than the text behind it.
PALIGEMMA_MODELS = {
    "paligemma": dict(
        seed=30053,
        text=dict(model_type="gemma", hidden_size=18, intermediate_size=26, num_hidden_layers=3,
                  num_attention_heads=3, num_key_value_heads=1, head_dim=8)),
    "paligemma2": dict(
        seed=31026,
        text=dict(model_type="gemma2", hidden_size=20, intermediate_size=30, num_hidden_layers=4,
                  num_attention_heads=4, num_key_value_heads=2, head_dim=6, query_pre_attn_scalar=10,
                  sliding_window=5, attn_logit_softcapping=2.5, final_logit_softcapping=9.0)),
}
CASES = [
    (["rgb_37x53.png"], "answer en what is in the image?"),
    (["rgb_37x53.png", "palette.png"], "caption en"),
    (["rgba.png"], ""),
    ([], "detect cat ; dog"),
]
TARGETS = ["a cat sits on the table", "<loc0001><loc0002><loc0009><loc0011> cat", "3"]  # texts scored
TOKENIZER = make_tokenizers.train_gemma(330)


class Tokens:
    """The tokenizer as the generation goldens use it: targets end with <eos>."""

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer

    def __call__(self, text):
        ids = self.tokenizer(text, add_special_tokens=False).input_ids
        return tf.BatchEncoding({"input_ids": ids + [self.tokenizer.eos_token_id]})

    def decode(self, ids, skip_special_tokens=True):
        return self.tokenizer.decode(ids, skip_special_tokens=skip_special_tokens)


def processor_of(folder):
    image = SiglipImageProcessorPil(size={"height": VISION["image_size"], "width": VISION["image_size"]})
    image.image_seq_length = (VISION["image_size"] // VISION["patch_size"]) ** 2
    return tf.PaliGemmaProcessor(image, tf.AutoTokenizer.from_pretrained(folder))


def inputs_of(processor, files, prompt):
    """What the processor gives; without an image, which it does not take, the same form by hand."""
    if files:
        images = [[ImageOps.exif_transpose(Image.open(IMAGES / f)).convert("RGB") for f in files]]
        out = dict(processor(images=images, text=[prompt], return_tensors="pt"))
        out.pop("labels")
        return out
    ids = processor.tokenizer(f"<bos>{prompt}\n", return_tensors="pt", add_special_tokens=False).input_ids
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "token_type_ids": torch.zeros_like(ids)}


def build(spec, pieces, image_token, seed):
    config = tf.PaliGemmaConfig(
        vision_config=VISION | {"projection_dim": spec["text"]["hidden_size"]},
        text_config=spec["text"] | {"vocab_size": -(-(image_token + 1) // 8) * 8},
        image_token_index=image_token,
        projection_dim=spec["text"]["hidden_size"],
    )
    model = tf.PaliGemmaForConditionalGeneration._from_config(config, attn_implementation="eager").eval()
    g = generator(seed)
    fill(model.model.vision_tower, g)
    projector, language = model.model.multi_modal_projector.linear, model.model.language_model
    projector.weight.copy_(draw(projector.weight.shape, projector.weight.shape[1] ** -0.5, g))
    projector.bias.copy_(draw(projector.bias.shape, 0.2, g))
    width = spec["text"]["hidden_size"]
    for name, p in sorted(language.named_parameters()):
        if name == "norm.weight":  # of 1 + w; negative: no token repeats itself
            p.copy_(-4 + draw(p.shape, 0.4, g))
        elif "norm" in name:
            p.copy_(draw(p.shape, 0.25, g))
        elif name == "embed_tokens.weight":
            p.copy_(draw(p.shape, width**-0.5, g))
        else:
            std = 1.0 / math.sqrt(p.shape[1])
            p.copy_(draw(p.shape, 2.0 * std if "o_proj" in name or "down_proj" in name else 1.5 * std, g))
    table = language.embed_tokens.weight
    ids = torch.randperm(pieces - 260, generator=g)[:44] + 260  # no special tokens and no bytes
    liven(table, table.shape[0], torch.cat([ids, torch.tensor([1, 1])]))
    table[1] *= 1.4  # so that some sequences end
    return model


def rounded_scale(model, dtype):
    """The embeddings' scale as a table of that type has it: GemmaTextScaledWordEmbedding rounds it to its own."""
    embed = model.model.language_model.embed_tokens
    embed.embed_scale.copy_(torch.tensor(embed.scalar_embed_scale).to(dtype).float())


def prefix_stages(model, inputs):
    """Of the last block and the norm the last row alone: what the engine computes."""
    language, seen = model.model.language_model, {}
    hooks = [language.layers[0].register_forward_pre_hook(lambda m, a, k: seen.update({"prefix.input": a[0]}),
                                                          with_kwargs=True)]
    for i, layer in enumerate(language.layers):
        hooks.append(layer.register_forward_hook(
            lambda m, a, o, i=i: seen.update({f"prefix.block.{i}": o[0] if isinstance(o, tuple) else o})))
    hooks.append(language.norm.register_forward_hook(lambda m, a, o: seen.update({"prefix.hidden": o})))
    model(**inputs, use_cache=False)
    for hook in hooks:
        hook.remove()
    last = f"prefix.block.{len(language.layers) - 1}"
    return {k: v[0][-1:] if k in (last, "prefix.hidden") else v[0] for k, v in seen.items()}


def goldens(folder, model, processor, every_stage=True):
    tensors, cases = {}, []
    few = ("projected", "prefix.input", "prefix.hidden", "logits.0", f"logits.{STEPS - 1}")
    for c, (files, prompt) in enumerate(CASES):
        inputs = inputs_of(processor, files, prompt)
        stages = {}
        for j, file in enumerate(files):
            seen = vision_stages(model.model.vision_tower, pixels_of(file, VISION["image_size"]))
            seen = {"vision.tokens": seen["vision.tokens"]}  # the others are SigLIP's, tested there
            seen["projected"] = model.model.multi_modal_projector(seen["vision.tokens"])
            stages |= {f"image{j}/{k}": v for k, v in seen.items()}
        stages |= prefix_stages(model, inputs)
        ids = inputs["input_ids"][0].tolist()
        case = {"images": files, "prompt": prompt, "input_ids": ids,
                "text_ids": [i for i in ids if i != model.config.image_token_index]}
        case |= generation_goldens(model, inputs, Tokens(processor.tokenizer), [1.0, 0.0, 2.0] if c == 0 else [1.0],
                                   TARGETS if c == 0 else [])
        if c == 0:
            tokens = case["greedy"]["tokens"]
            _, logits = teacher_forced(model, inputs, tokens)
            case["decoder_input_ids"] = [2] + tokens[: STEPS - 1]
            stages |= {f"logits.{t}": logits[t] for t in range(STEPS)}
        if c > 0 or not every_stage:
            stages = {k: v for k, v in stages.items() if k.split("/")[-1] in few}
        tensors |= {f"case{c}/{k}": v for k, v in stages.items()}
        cases.append(case)
    common.write_tensors(folder / "golden.safetensors", tensors)
    return cases


def hub_state(model):
    """Names as on the hub; transformers 5 saves others."""
    state = {}
    for name, value in model.state_dict().items():
        if name == "lm_head.weight":
            continue  # tied
        name = name.removeprefix("model.")
        name = name.replace("language_model.", "language_model.model.", 1) if name.startswith("language") else name
        name = name.replace("vision_tower.", "vision_tower.vision_model.", 1)
        state[name] = value
    return state


def make_paligemma(name, spec):
    folder = MODELS / name
    reset(folder)
    make_tokenizers.write_gemma_folder(folder, TOKENIZER)
    processor = processor_of(folder)
    image_token = processor.image_token_id
    model, seed = search(
        lambda seed: build(spec, processor.tokenizer.vocab_size, image_token, seed),
        lambda m: [inputs_of(processor, f, p) for f, p in CASES],
        spec["seed"],
    )
    model.save_pretrained(folder)  # the names that transformers 5 saves
    write_preprocessor(folder, VISION["image_size"])
    again = reload(type(model), folder)
    same_weights(model, again)
    cases = goldens(folder, again, processor)
    common.write_json(folder / "golden.json", common.header("paligemma") | {"seed": seed, "cases": cases})
    finish = [c["greedy"]["finish_reason"] for c in cases]
    common.log(f"model {name}: seed {seed}, greedy {[c['greedy']['tokens'] for c in cases]} {finish}, {size(folder)}")

    # bf16 under the hub's names; the reference runs in f32 on the rounded weights.
    half = MODELS / f"{name}_bf16"
    reset(half)
    for file in folder.iterdir():
        if file.name not in ("golden.json", "golden.safetensors", "model.safetensors"):
            (half / file.name).write_bytes(file.read_bytes())
    state = {k: v.to(torch.bfloat16) for k, v in hub_state(again).items()}
    common.write_tensors(half / "model.safetensors", state, {"format": "pt"})
    rewrite_config(half, lambda c: c.__setitem__("dtype", "bfloat16"))
    model = reload(type(again), half)
    rounded_scale(model, torch.bfloat16)
    check_clear(model, [inputs_of(processor, f, p) for f, p in CASES], half.name)
    cases = goldens(half, model, processor, every_stage=False)
    common.write_json(half / "golden.json", common.header("paligemma") | {"weights": "bf16", "cases": cases})
    common.log(f"model {half.name}: {size(half)}")
    return again


def main():
    for name, spec in PALIGEMMA_MODELS.items():
        make_paligemma(name, spec)


if __name__ == "__main__":
    main()
