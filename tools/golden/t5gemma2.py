"""T5Gemma 2: SigLIP's tokens, pooled, in the input of an encoder-decoder on Gemma 3 blocks."""

import math

import common
import make_tokenizers
from folders import IMAGES, MODELS, reload, reset, rewrite_config, size
from generation import STEPS, check_clear, generation_goldens, search, teacher_forced
from paligemma import Tokens
from stages import vision_stages
from weights import draw, fill, generator, liven, same_weights

torch = common.setup_torch()

import transformers as tf  # noqa: E402
from PIL import Image, ImageOps  # noqa: E402
from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil  # noqa: E402

SPECIALS = ["<start_of_image>", "<end_of_image>", "<image_soft_token>"]
TOKENIZER = make_tokenizers.train_gemma(330, locations=0, segments=0, more=SPECIALS)
VISION = dict(model_type="siglip_vision_model", hidden_size=24, intermediate_size=44, num_hidden_layers=2,
              num_attention_heads=3, image_size=86, patch_size=14, vision_use_head=False)  # 6 x 6 patches, pooled 3 x 3
TOKENS_PER_IMAGE = 4
ROPE = {"full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1000000.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0}}
TEXT = dict(hidden_size=20, intermediate_size=30, num_attention_heads=4, num_key_value_heads=2, head_dim=6,
            query_pre_attn_scalar=10, rope_parameters=ROPE)
# An even and an odd window, both shorter than what they slide over.
ENCODER = TEXT | dict(num_hidden_layers=3, sliding_window=6,
                      layer_types=["sliding_attention", "full_attention", "sliding_attention"])
DECODER = TEXT | dict(num_hidden_layers=4, sliding_window=5,
                      layer_types=["sliding_attention", "sliding_attention", "full_attention", "sliding_attention"])
SEED = 40125
CASES = [
    (["rgb_37x53.png"], "<start_of_image> in this image, there is"),
    (["rgb_37x53.png", "palette.png"], "first <start_of_image>then <start_of_image>"),
    ([], "a cat sits on the table and the dog"),
    ([], ""),
]
TARGETS = ["a cat sits on the table", "two birds", "3"]  # texts scored


def write_folder(folder):
    make_tokenizers.write_gemma_folder(folder, TOKENIZER, {
        "extra_special_tokens": {"boi_token": SPECIALS[0], "eoi_token": SPECIALS[1], "image_token": SPECIALS[2]}})
    side = VISION["image_size"]
    common.write_json(
        folder / "preprocessor_config.json",
        {
            "do_normalize": True,
            "do_rescale": True,
            "do_resize": True,
            "image_mean": [0.5, 0.5, 0.5],
            "image_processor_type": "Gemma3ImageProcessor",
            "image_std": [0.5, 0.5, 0.5],
            "processor_class": "Gemma3Processor",
            "resample": 2,
            "rescale_factor": 0.00392156862745098,
            "size": {"height": side, "width": side},
        },
    )


def processor_of(folder):
    side = VISION["image_size"]
    image = Gemma3ImageProcessorPil(size={"height": side, "width": side})
    return tf.Gemma3Processor(image, tf.AutoTokenizer.from_pretrained(folder), image_seq_length=TOKENS_PER_IMAGE)


def image_of(file):
    return ImageOps.exif_transpose(Image.open(IMAGES / file)).convert("RGB")


def inputs_of(processor, files, prompt):
    out = dict(processor(images=[[image_of(f) for f in files]] if files else None, text=[prompt], return_tensors="pt"))
    return {k: v for k, v in out.items() if k in ("input_ids", "attention_mask", "pixel_values")}


def build(tokenizer, seed):
    vocab = -(-len(tokenizer) // 8) * 8
    boi, eoi, image = (tokenizer.convert_tokens_to_ids(t) for t in SPECIALS)
    config = tf.T5Gemma2Config(
        encoder=dict(text_config=ENCODER | {"vocab_size": vocab}, vision_config=VISION, boi_token_index=boi,
                     eoi_token_index=eoi, image_token_index=image, mm_tokens_per_image=TOKENS_PER_IMAGE),
        decoder=DECODER | {"vocab_size": vocab},
        eoi_token_index=eoi,
        image_token_index=image,
    )
    model = tf.T5Gemma2ForConditionalGeneration._from_config(config, attn_implementation="eager").eval()
    g = generator(seed)
    encoder, decoder = model.model.encoder, model.model.decoder
    fill(encoder.vision_tower, g)
    encoder.multi_modal_projector.mm_input_projection_weight.copy_(
        draw((VISION["hidden_size"], TEXT["hidden_size"]), VISION["hidden_size"] ** -0.5, g))
    encoder.multi_modal_projector.mm_soft_emb_norm.weight.copy_(draw((VISION["hidden_size"],), 0.25, g))
    for stack in (encoder.text_model, decoder):
        for name, p in sorted(stack.named_parameters()):
            if name == "norm.weight" and stack is decoder:  # of 1 + w; negative: no token repeats itself
                p.copy_(-4 + draw(p.shape, 0.4, g))
            elif "norm" in name:
                p.copy_(draw(p.shape, 0.25, g))
            elif name == "embed_tokens.weight":
                p.copy_(draw(p.shape, p.shape[1] ** -0.5, g))
            elif name == "embed_tokens.eoi_embedding":
                p.copy_(draw(p.shape, 1.0, g))
            else:
                std = 1.0 / math.sqrt(p.shape[1])
                p.copy_(draw(p.shape, 2.0 * std if "o_proj" in name or "down_proj" in name else 1.5 * std, g))
    table = encoder.text_model.embed_tokens.weight
    assert decoder.embed_tokens.weight is table and model.lm_head.out_proj.weight is table
    ids = torch.randperm(len(tokenizer) - 270, generator=g)[:44] + 260  # no special tokens and no bytes
    liven(table, vocab, torch.cat([ids, torch.tensor([1, 1])]))
    table[1] *= 1.4  # so that some sequences end
    return model


def rounded_scale(model, dtype):
    for embed in (model.model.encoder.text_model.embed_tokens, model.model.decoder.embed_tokens):
        embed.embed_scale.copy_(torch.tensor(embed.scalar_embed_scale).to(dtype).float())


def encoder_stages(model, inputs):
    text, seen = model.model.encoder.text_model, {}
    hooks = [text.layers[0].register_forward_pre_hook(lambda m, a, k: seen.update({"encoder.input": a[0]}),
                                                      with_kwargs=True)]
    for i, layer in enumerate(text.layers):
        hooks.append(layer.register_forward_hook(
            lambda m, a, o, i=i: seen.update({f"encoder.block.{i}": o[0] if isinstance(o, tuple) else o})))
    out = model.model.encoder(**inputs)
    for hook in hooks:
        hook.remove()
    seen["encoder.memory"] = out.last_hidden_state
    return {k: v[0] for k, v in seen.items()}


def goldens(folder, model, processor, every_stage=True):
    tensors, cases = {}, []
    few = ("projected", "encoder.input", "encoder.memory", "logits.0", f"logits.{STEPS - 1}")
    for c, (files, prompt) in enumerate(CASES):
        inputs = inputs_of(processor, files, prompt)
        stages = {}
        for j, file in enumerate(files):
            pixels = processor.image_processor(image_of(file), return_tensors="pt").pixel_values
            tokens = vision_stages(model.model.encoder.vision_tower, pixels)["vision.tokens"]
            stages[f"image{j}/vision.tokens"] = tokens
            stages[f"image{j}/projected"] = model.model.encoder.multi_modal_projector(tokens[None])[0]
            if c == 0:
                stages[f"image{j}/pixels"] = pixels[0]
        stages |= encoder_stages(model, inputs)
        case = {"images": files, "prompt": prompt, "input_ids": inputs["input_ids"][0].tolist(),
                "image_token": model.config.image_token_index, "tokens_per_image": TOKENS_PER_IMAGE}
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
    """Flat names as on the hub: no "text_model.", and "vision_model." in those of the tower."""
    state, tied = {}, ("model.decoder.embed_tokens.weight", "model.decoder.embed_tokens.eoi_embedding",
                       "lm_head.out_proj.weight")
    for name, value in model.state_dict().items():
        if name not in tied:
            state[name.replace("text_model.", "").replace("vision_tower.", "vision_tower.vision_model.")] = value
    return state


def make_t5gemma2():
    folder = MODELS / "t5gemma2"
    reset(folder)
    write_folder(folder)
    processor = processor_of(folder)
    model, seed = search(
        lambda seed: build(processor.tokenizer, seed),
        lambda m: [inputs_of(processor, f, p) for f, p in CASES],
        SEED,
    )
    model.save_pretrained(folder)
    again = reload(type(model), folder)
    same_weights(model, again)
    cases = goldens(folder, again, processor)
    common.write_json(folder / "golden.json", common.header("t5gemma2") | {"seed": seed, "cases": cases})
    common.log(f"model t5gemma2: seed {seed}, greedy {[c['greedy']['tokens'] for c in cases]}, {size(folder)}")

    half = MODELS / "t5gemma2_bf16"
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
    common.write_json(half / "golden.json", common.header("t5gemma2") | {"weights": "bf16", "cases": cases})
    common.log(f"model t5gemma2_bf16: {size(half)}")


if __name__ == "__main__":
    make_t5gemma2()
