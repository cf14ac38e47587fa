"""Writes the tiny models with random weights and their goldens (tests/data/models).

Authority: the modeling code of transformers, run in f32 on one thread, attention "eager", and use_cache=False
(its cache is wrong where the decoder has more layers than the encoder). Weights are drawn so that greedy output varies;
seeds are searched until the choices are clear (see `clear_enough`), so that rounding cannot turn a token.
"""

import copy
import json
import math
import shutil

import common
import make_images
import make_posemb
import make_tokenizers
import numpy as np

torch = common.setup_torch()

import transformers as tf  # noqa: E402
from PIL import Image, ImageOps  # noqa: E402
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil  # noqa: E402

MODELS = common.DATA / "models"
IMAGES = common.DATA / "images"
NEW_TOKENS = 12
STEPS = 8  # logits kept of the first case
LONG = (  # about 150 tokens: every relative-position bucket of the encoder is used, the last one too
    "a cat sits on the table and the dog looks at a house near the river ; two birds stand next to a small boat, "
    "the old man runs to a street with three apples and 42.50 on a green tree. How many apples are there? "
    "Answer in EN: what is in the image? The white snow sleeps under a wooden chair and a red car plays with the window"
)


# ---------------------------------------------------------------- weights


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


# ---------------------------------------------------------------- T5 family

# `seed` is where the search starts: the seed that it found, so that a second run is quick.
T5_MODELS = {
    "t5_v1_1": dict(seed=1037, cls="T5", d_model=20, d_kv=6, num_heads=3, d_ff=28, num_layers=2, num_decoder_layers=2,
                    feed_forward_proj="gated-gelu", tied=False, tokenizer="t5", long=True),
    "ul2": dict(seed=2026, halves=True, cls="T5", d_model=24, d_kv=8, num_heads=4, d_ff=40, num_layers=2, num_decoder_layers=2,
                feed_forward_proj="gated-silu", tied=True, tokenizer="small"),
    "mt5": dict(seed=3005, cls="MT5", d_model=18, d_kv=10, num_heads=2, d_ff=26, num_layers=2, num_decoder_layers=2,
                feed_forward_proj="gated-gelu", tied=False, tokenizer="small"),
    "umt5": dict(seed=5225, cls="UMT5", d_model=22, d_kv=8, num_heads=3, d_ff=30, num_layers=3, num_decoder_layers=3,
                 feed_forward_proj="gated-gelu", tied=False, tokenizer="small", long=True),
    "t5_original": dict(seed=5246, cls="T5", d_model=16, d_kv=4, num_heads=5, d_ff=36, num_layers=2, num_decoder_layers=2,
                        feed_forward_proj="relu", tied=True, tokenizer="small", hub_style=True, long=True),
    "flan_t5": dict(seed=6160, cls="T5", d_model=20, d_kv=8, num_heads=3, d_ff=28, num_layers=2, num_decoder_layers=4,
                    feed_forward_proj="gated-gelu", tied=False, tokenizer="small", hub_style=True),
}

PROMPTS = ["Answer in EN: what is in the image?", "a cat <extra_id_0> the table", ""]
TARGETS = ["a cat sits on the table", "two birds", "3"]


def t5_config(spec, pieces):
    vocab = -(-(pieces + 100) // 8) * 8  # rows padded to a multiple of 8: more rows than tokens
    keys = ("d_model", "d_kv", "num_heads", "d_ff", "num_layers", "num_decoder_layers", "feed_forward_proj")
    config = getattr(tf, spec["cls"] + "Config")
    return config(vocab_size=vocab, decoder_start_token_id=0, tie_word_embeddings=spec["tied"], dropout_rate=0.0,
                  **{k: spec[k] for k in keys})


def build_t5(spec, pieces, seed):
    config = t5_config(spec, pieces)
    model = getattr(tf, spec["cls"] + "ForConditionalGeneration")._from_config(config, attn_implementation="eager")
    model.eval()
    if not spec["tied"]:
        model.lm_head.weight = torch.nn.Parameter(torch.empty_like(model.shared.weight))
    g = generator(seed)
    fill(model, g)
    ids = torch.randperm(pieces - 3, generator=g)[:44] + 3
    ids = torch.cat([ids, torch.tensor([1, 1, pieces + 99])])
    liven(model.lm_head.weight, config.vocab_size, ids)
    model.lm_head.weight[1] *= 1.4  # so that some sequences end
    return model


def encoder_stages(model, embeds):
    out = model.encoder(inputs_embeds=embeds, output_hidden_states=True)
    # hidden_states: input, after each block but the last (transformers replaces the last by the normed one),
    # so the blocks are caught by hooks instead.
    blocks = []

    def keep(module, inputs, output):
        blocks.append(output[0] if isinstance(output, tuple) else output)  # UMT5Block gives the tensor alone

    hooks = [b.register_forward_hook(keep) for b in model.encoder.block]
    memory = model.encoder(inputs_embeds=embeds).last_hidden_state
    for h in hooks:
        h.remove()
    assert torch.equal(memory, out.last_hidden_state)
    stages = {"encoder.input": embeds[0]}
    stages |= {f"encoder.block.{i}": b[0] for i, b in enumerate(blocks)}
    stages["encoder.memory"] = memory[0]
    return stages


class Noise(tf.LogitsProcessor):
    """Deterministic disturbance of the scores: what survives it, survives rounding."""

    def __init__(self, size, seed):
        self.size, self.seed = size, seed

    def __call__(self, input_ids, scores):
        g = generator(self.seed * 1000 + input_ids.shape[1])
        return scores + draw(scores.shape, self.size, g)


def generate(model, embeds, beams=1, n_best=1, length_penalty=1.0, noise=None):
    return model.generate(
        inputs_embeds=embeds,
        attention_mask=torch.ones(embeds.shape[:2], dtype=torch.long),
        max_new_tokens=NEW_TOKENS,
        num_beams=beams,
        num_return_sequences=n_best,
        length_penalty=length_penalty,
        early_stopping=False,
        do_sample=False,
        use_cache=False,
        output_logits=True,
        output_scores=True,
        return_dict_in_generate=True,
        logits_processor=tf.LogitsProcessorList([noise] if noise else []),
    )


def cut(sequence):
    """Generated ids without the start token and the padding; </s> stays, as max_new_tokens counts it."""
    ids = sequence.tolist()[1:]
    return ids[: ids.index(1) + 1] if 1 in ids else ids


def teacher_forced(model, embeds, targets):
    """Natural-log probabilities of each target, the decoder starting with 0; also the logits [T, V]."""
    decoder_ids = torch.tensor([[0] + targets[:-1]])
    logits = model(inputs_embeds=embeds, decoder_input_ids=decoder_ids, use_cache=False).logits[0]
    logp = torch.log_softmax(logits.double(), -1)
    return logp[torch.arange(len(targets)), torch.tensor(targets)].tolist(), logits


def clear_enough(model, embeds, penalties, noise=2e-3, margin=0.03):
    """True where greedy and beams give the same under disturbance, and greedy varies."""
    out = generate(model, embeds)
    ids = cut(out.sequences[0])
    top = torch.stack([x[0] for x in out.logits]).topk(2).values
    if (top[:, 0] - top[:, 1]).min() < margin or len(set(ids)) < min(4, len(ids)):
        return False
    for lp in penalties:
        plain = generate(model, embeds, 4, 4, lp)
        gaps = plain.sequences_scores[:-1] - plain.sequences_scores[1:]
        if gaps.min() < 1e-3:
            return False
        for seed in (1, 2):
            other = generate(model, embeds, 4, 4, lp, Noise(noise / 4, seed))
            if other.sequences.shape != plain.sequences.shape or not torch.equal(other.sequences, plain.sequences):
                return False
    return True


def decode(tokenizer, ids):
    return tokenizer.decode(ids, skip_special_tokens=True)


def generation_goldens(model, embeds, tokenizer, penalties, targets):
    out = generate(model, embeds)
    ids = cut(out.sequences[0])
    logps, _ = teacher_forced(model, embeds, ids)
    case = {
        "greedy": {
            "tokens": ids,
            "token_logprobs": logps,
            "logprob": sum(logps),
            "finish_reason": "stop" if ids[-1] == 1 else "length",
            "text": decode(tokenizer, ids),
        },
        "beams": [],
        "scores": [],
    }
    for lp in penalties:
        out = generate(model, embeds, 4, 4, lp)
        rows = []
        for seq, score in zip(out.sequences, out.sequences_scores.tolist()):
            ids = cut(seq)
            logps, _ = teacher_forced(model, embeds, ids)
            assert abs(sum(logps) / len(ids) ** lp - score) < 1e-4, (sum(logps), len(ids), lp, score)
            rows.append({"tokens": ids, "score": score, "logprob": sum(logps), "text": decode(tokenizer, ids)})
        case["beams"].append({"num_beams": 4, "length_penalty": lp, "candidates": rows})
    for text in targets:
        ids = tokenizer(text).input_ids
        logps, _ = teacher_forced(model, embeds, ids)
        case["scores"].append({"text": text, "tokens": ids, "token_logprobs": logps, "logprob": sum(logps)})
    return case


def t5_goldens(folder, model, tokenizer, long, kind="t5"):
    import sentencepiece as spm

    sp = spm.SentencePieceProcessor(model_file=str(folder / "spiece.model"))
    tensors, cases = {}, []
    prompts = PROMPTS + ([LONG] if long else [])
    for c, prompt in enumerate(prompts):
        ids = tokenizer(prompt).input_ids
        embeds = model.shared(torch.tensor([ids]))
        penalties = [1.0, 0.0, 2.0] if c == 0 else [1.0]
        targets = TARGETS if c == 0 else [LONG] if prompt == LONG else []
        stages = encoder_stages(model, embeds)
        if prompt == LONG:
            stages = {"encoder.memory": stages["encoder.memory"]}
            assert len(ids) > 128, len(ids)
        elif c > 0:
            stages = {k: v for k, v in stages.items() if k == "encoder.memory"}
        case = {"prompt": prompt, "input_ids": ids, "spm_ids": sp.encode(prompt) + [1]}
        case |= generation_goldens(model, embeds, tokenizer, penalties, targets)
        if c == 0:
            stages |= logits_stages(model, embeds, case)
        tensors |= {f"case{c}/{k}": v for k, v in stages.items()}
        cases.append(case)
    common.write_tensors(folder / "golden.safetensors", tensors)
    return cases


def logits_stages(model, embeds, case):
    ids = case["greedy"]["tokens"]
    assert len(ids) >= STEPS
    _, logits = teacher_forced(model, embeds, ids)
    case["decoder_input_ids"] = [0] + ids[: STEPS - 1]
    return {f"logits.{t}": logits[t] for t in range(STEPS)}


def all_clear(model, inputs):
    """True where every case is clear, the first is long enough and varied, and one sequence ends by itself."""
    first = cut(generate(model, inputs[0]).sequences[0])
    if len(first) < STEPS or len(set(first)) < 6:
        return False
    greedy = [first] + [cut(generate(model, e).sequences[0]) for e in inputs[1:]]
    if not any(ids[-1] == 1 for ids in greedy):
        return False
    return all(clear_enough(model, e, [1.0, 0.0, 2.0] if c == 0 else [1.0]) for c, e in enumerate(inputs))


def search(build, inputs_of, first_seed, halves=False, tries=2000):
    """The first seed whose model makes clear choices; `inputs_of` gives the encoder's inputs of every case.

    `halves`: the same with the weights rounded to bf16 and f16.
    """
    for seed in range(first_seed, first_seed + tries):
        model = build(seed)
        dtypes = (None, torch.bfloat16, torch.float16) if halves else (None,)
        variants = (rounded(model, d) if d else model for d in dtypes)
        if all(all_clear(getattr(v, "language", v), inputs_of(v)) for v in variants):
            return model, seed
    raise RuntimeError("no seed gives clear choices")


def rewrite_config(folder, change):
    path = folder / "config.json"
    config = json.loads(path.read_text())
    change(config)
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def hub_style(config):
    """As files on the hub are: the old switch where it said something, nothing that transformers 5 added."""
    scaled = config.pop("scale_decoder_outputs")
    config.pop("tie_word_embeddings")
    if not scaled:
        config["tie_word_embeddings"] = False
    for key in ("dense_act_fn", "is_gated_act", "classifier_dropout", "is_decoder"):
        config.pop(key, None)
    config["transformers_version"] = "4.23.1"


def reset(folder):
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)


def reload(model_class, folder, dtype=None):
    model = model_class.from_pretrained(folder, attn_implementation="eager", dtype=dtype or torch.float32)
    return model.eval()


def same_weights(a, b):
    x, y = a.state_dict(), b.state_dict()
    assert x.keys() == y.keys()
    for name in x:
        assert torch.equal(x[name], y[name]), name


def make_t5(name, spec):
    folder = MODELS / name
    reset(folder)
    make_tokenizers.write_t5_folder(folder, make_tokenizers.load(spec["tokenizer"]), 100)
    tokenizer = make_tokenizers.t5_tokenizer(folder)
    pieces = len(tokenizer) - 100
    prompts = PROMPTS + ([LONG] if spec.get("long") else [])
    model, seed = search(
        lambda seed: build_t5(spec, pieces, seed),
        lambda m: [m.shared(torch.tensor([tokenizer(p).input_ids])) for p in prompts],
        spec["seed"],
        halves=spec.get("halves", False),
    )
    model.save_pretrained(folder)
    if spec.get("hub_style"):
        rewrite_config(folder, hub_style)
    again = reload(type(model), folder)  # what the files say, not what was built
    same_weights(model, again)
    cases = t5_goldens(folder, again, tokenizer, spec.get("long"))
    common.write_json(folder / "golden.json", common.header("t5") | {"seed": seed, "cases": cases})
    finish = [c["greedy"]["finish_reason"] for c in cases]
    common.log(f"model {name}: seed {seed}, greedy {cases[0]['greedy']['tokens']} {finish}, {size(folder)}")
    return again


def size(folder):
    return f"{sum(f.stat().st_size for f in folder.rglob('*') if f.is_file()) // 1024} KB"


# ---------------------------------------------------------------- SigLIP


def write_preprocessor(folder, size_px):
    common.write_json(
        folder / "preprocessor_config.json",
        {
            "do_normalize": True,
            "do_rescale": True,
            "do_resize": True,
            "image_mean": [0.5, 0.5, 0.5],
            "image_processor_type": "SiglipImageProcessor",
            "image_std": [0.5, 0.5, 0.5],
            "processor_class": "SiglipProcessor",
            "resample": 3,
            "rescale_factor": 0.00392156862745098,
            "size": {"height": size_px, "width": size_px},
        },
    )


def pixels_of(file, size_px):
    image = ImageOps.exif_transpose(Image.open(IMAGES / file)).convert("RGB")
    processor = SiglipImageProcessorPil(size={"height": size_px, "width": size_px})
    return processor(image, return_tensors="pt").pixel_values


def vision_stages(tower, pixels):
    """Stages of a SiglipVisionModel for pixels [1, 3, S, S]."""
    blocks, patches = [], []
    hooks = [layer.register_forward_hook(lambda m, i, o: blocks.append(o)) for layer in tower.encoder.layers]
    hooks.append(tower.embeddings.patch_embedding.register_forward_hook(lambda m, i, o: patches.append(o)))
    embed = tower.embeddings(pixels)
    patches.clear()
    out = tower(pixels)
    for h in hooks:
        h.remove()
    stages = {"pixels": pixels[0], "patches": patches[0].flatten(2).transpose(1, 2)[0], "vision.embed": embed[0]}
    for i, b in enumerate(blocks):
        stages[f"vision.block.{i}"] = (b[0] if isinstance(b, tuple) else b)[0]
    stages["vision.tokens"] = out.last_hidden_state[0]
    if out.pooler_output is not None:
        stages["vision.pooled"] = out.pooler_output[0]
    return stages


def text_stages(tower, ids):
    blocks = []
    hooks = [layer.register_forward_hook(lambda m, i, o: blocks.append(o)) for layer in tower.encoder.layers]
    embed = tower.embeddings(input_ids=ids)
    out = tower(input_ids=ids)
    for h in hooks:
        h.remove()
    stages = {"text.embed": embed[0]}
    for i, b in enumerate(blocks):
        stages[f"text.block.{i}"] = (b[0] if isinstance(b, tuple) else b)[0]
    stages["text.tokens"] = out.last_hidden_state[0]
    stages["text.pooled"] = out.pooler_output[0]
    return stages


RESIZED = 73  # px: 5 x 5 patches from 3 x 3, 3 px remain


def resized_stages(model, file, size_px):
    """The tower at another resolution, its positions resized as big_vision does."""
    grid, new_grid = model.config.image_size // model.config.patch_size, size_px // model.config.patch_size
    table = model.embeddings.position_embedding.weight.double().numpy().reshape(grid, grid, -1)
    table = make_posemb.resample(table, (new_grid, new_grid)).reshape(new_grid * new_grid, -1)
    config = copy.deepcopy(model.config)
    config.image_size = size_px
    other = tf.SiglipVisionModel._from_config(config, attn_implementation="eager").eval()
    state = model.state_dict() | {"embeddings.position_embedding.weight": torch.from_numpy(table).float()}
    other.load_state_dict(state)
    stages = vision_stages(other, pixels_of(file, size_px))
    return {k: stages[k] for k in ("vision.embed", "vision.tokens")}


def make_siglip_vision():
    folder = MODELS / "siglip_vision"
    reset(folder)
    config = tf.SiglipVisionConfig(hidden_size=24, intermediate_size=52, num_hidden_layers=3, num_attention_heads=3,
                                   image_size=44, patch_size=14, vision_use_head=False)
    model = tf.SiglipVisionModel._from_config(config, attn_implementation="eager").eval()
    fill(model, generator(11))
    model.save_pretrained(folder)
    write_preprocessor(folder, 44)
    same_weights(model, reload(tf.SiglipVisionModel, folder))
    tensors = {}
    images = ["rgb_37x53.png", "rgba.png"]
    for j, file in enumerate(images):
        for k, v in vision_stages(model, pixels_of(file, 44)).items():
            if j == 0 or k == "vision.tokens":
                tensors[f"image{j}/{k}"] = v
    tensors |= {f"resized/{k}": v for k, v in resized_stages(model, images[0], RESIZED).items()}
    common.write_tensors(folder / "golden.safetensors", tensors)
    common.write_json(folder / "golden.json", common.header("siglip_vision") | {
        "seed": 11, "images": images, "resized": {"image": images[0], "resolution": RESIZED}})
    common.log(f"model siglip_vision: {size(folder)}")


def make_siglip_two_tower():
    folder = MODELS / "siglip_two_tower"
    reset(folder)
    make_tokenizers.write_siglip_folder(folder, make_tokenizers.load("siglip"), 12)
    tokenizer = tf.AutoTokenizer.from_pretrained(folder)
    config = tf.SiglipConfig(
        vision_config=dict(hidden_size=24, intermediate_size=44, num_hidden_layers=2, num_attention_heads=2,
                           image_size=48, patch_size=16),
        text_config=dict(hidden_size=16, intermediate_size=50, num_hidden_layers=2, num_attention_heads=2,
                         max_position_embeddings=12, vocab_size=-(-tokenizer.vocab_size // 8) * 8,
                         projection_size=24, bos_token_id=None, eos_token_id=1),
    )
    model = tf.SiglipModel._from_config(config, attn_implementation="eager").eval()
    fill(model, generator(12))
    model.save_pretrained(folder)
    write_preprocessor(folder, 48)
    model = reload(tf.SiglipModel, folder)
    images = ["rgb_37x53.png", "palette.png"]
    labels = ["a cat", "A Photo of two birds!", "the river, near a very long wooden chair and the window"]
    tensors, rows = {}, []
    pixels = torch.cat([pixels_of(f, 48) for f in images])
    for j in range(len(images)):
        stages = vision_stages(model.vision_model, pixels[j : j + 1])
        keep = stages if j == 0 else ("pixels", "vision.tokens", "vision.pooled")
        tensors |= {f"image{j}/{k}": stages[k] for k in keep}
    ids = tokenizer(labels, padding="max_length", truncation=True, max_length=12, return_tensors="pt").input_ids
    for j, label in enumerate(labels):
        tensors |= {f"text{j}/{k}": v for k, v in text_stages(model.text_model, ids[j : j + 1]).items()}
        rows.append({"text": label, "input_ids": ids[j].tolist()})
    out = model(input_ids=ids, pixel_values=pixels)
    tensors["logits_per_image"] = out.logits_per_image
    tensors["probabilities"] = torch.sigmoid(out.logits_per_image)
    tensors["image_embeds"] = out.image_embeds  # normalised
    tensors["text_embeds"] = out.text_embeds
    common.write_tensors(folder / "golden.safetensors", tensors)
    common.write_json(
        folder / "golden.json",
        common.header("siglip") | {
            "seed": 12, "images": images, "texts": rows,
            "logits_per_image": out.logits_per_image.tolist(),
            "probabilities": torch.sigmoid(out.logits_per_image).tolist(),
        },
    )
    common.log(f"model siglip_two_tower: {size(folder)}, probabilities {torch.sigmoid(out.logits_per_image)}")


# ---------------------------------------------------------------- PaLI-3, composed

PALI_PROMPTS = {
    "caption": "Generate the alt_text in {lang} at 0",
    "vqa": "Answer in {lang}: {question}",
    "ocr": "Generate the ocr_text in {lang}:",
    "detect": "detect: {objects}",
    "default_lang": "EN",
}
PALI_VISION = dict(hidden_size=24, intermediate_size=44, num_hidden_layers=2, num_attention_heads=3, image_size=44,
                   patch_size=14, vision_use_head=False)
PALI_LANGUAGE = dict(seed=20016, cls="T5", d_model=28, d_kv=8, num_heads=3, d_ff=36, num_layers=2, num_decoder_layers=2,
                     feed_forward_proj="gated-silu", tied=True)
PALI_CASES = [
    (["rgb_37x53.png"], "Answer in EN: what is in the image?"),
    (["rgb_37x53.png", "palette.png"], "Answer in EN: what is in the image?"),
    (["rgba.png"], ""),
]


class Pali3(torch.nn.Module):
    """The composed model: tokens of every image, projected, then the text, into the encoder."""

    def __init__(self, vision, projector, language):
        super().__init__()
        self.vision, self.projector, self.language = vision, projector, language

    def embeds(self, files, prompt, tokenizer, stages=None):
        parts, size_px = [], self.vision.config.image_size
        for j, file in enumerate(files):
            seen = vision_stages(self.vision, pixels_of(file, size_px))
            seen["projected"] = self.projector(seen["vision.tokens"])
            parts.append(seen["projected"])
            if stages is not None:
                stages |= {f"image{j}/{k}": v for k, v in seen.items()}
        ids = tokenizer(prompt).input_ids
        parts.append(self.language.shared(torch.tensor(ids)))
        return torch.cat(parts)[None], ids


def build_pali3(pieces, seed):
    vision = tf.SiglipVisionModel._from_config(tf.SiglipVisionConfig(**PALI_VISION), attn_implementation="eager")
    vision.eval()
    g = generator(seed + 50000)
    fill(vision, g)
    projector = torch.nn.Linear(PALI_VISION["hidden_size"], PALI_LANGUAGE["d_model"])
    projector.weight.copy_(draw(projector.weight.shape, PALI_VISION["hidden_size"] ** -0.5, g))
    projector.bias.copy_(draw(projector.bias.shape, 0.2, g))
    return Pali3(vision, projector, build_t5(PALI_LANGUAGE, pieces, seed))


def pali3_state(model, prefix="vision_tower.vision_model."):
    state = {prefix + k: v for k, v in model.vision.state_dict().items()}
    state |= {"multi_modal_projector.linear." + k: v for k, v in model.projector.state_dict().items()}
    aliases = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight")  # all are `shared`
    state |= {"language_model." + k: v for k, v in model.language.state_dict().items() if k not in aliases}
    return state


def pali3_config(model):
    def saved(part):
        config = json.loads(part.config.to_json_string())  # as save_pretrained writes it
        config["architectures"] = [type(part).__name__]
        config["dtype"] = "float32"
        return config

    return {
        "model_type": "pali3",
        "architectures": ["Pali3ForConditionalGeneration"],
        "vision_config": saved(model.vision),
        "text_config": saved(model.language),
        "projector_bias": True,
        "prompts": PALI_PROMPTS,
    }


def write_pali3_common(folder, model):
    make_tokenizers.write_t5_folder(folder, make_tokenizers.load("small"), 100)
    write_preprocessor(folder, PALI_VISION["image_size"])
    common.write_json(folder / "config.json", pali3_config(model))
    common.write_json(folder / "generation_config.json",
                      {"decoder_start_token_id": 0, "eos_token_id": 1, "pad_token_id": 0})


def pali3_goldens(folder, model, tokenizer, every_stage=True):
    """Every stage of case 0; of the others what differs from it and the ends."""
    tensors, cases = {}, []
    few = ("projected", "encoder.input", "encoder.memory", "logits.0", f"logits.{STEPS - 1}")
    for c, (files, prompt) in enumerate(PALI_CASES):
        stages = {}
        embeds, ids = model.embeds(files, prompt, tokenizer, stages)
        stages |= encoder_stages(model.language, embeds)
        case = {"images": files, "prompt": prompt, "input_ids": ids}
        case |= generation_goldens(model.language, embeds, tokenizer, [1.0, 0.0, 2.0] if c == 0 else [1.0],
                                   TARGETS if c == 0 else [])
        if c == 0:
            stages |= logits_stages(model.language, embeds, case)
        if c > 0 or not every_stage:
            stages = {k: v for k, v in stages.items() if k.split("/")[-1] in few}
        tensors |= {f"case{c}/{k}": v for k, v in stages.items()}
        cases.append(case)
    common.write_tensors(folder / "golden.safetensors", tensors)
    return cases


def make_pali3():
    folder = MODELS / "pali3"
    reset(folder)
    make_tokenizers.write_t5_folder(folder, make_tokenizers.load("small"), 100)
    tokenizer = make_tokenizers.t5_tokenizer(folder)
    pieces = len(tokenizer) - 100
    model, seed = search(
        lambda seed: build_pali3(pieces, seed),
        lambda m: [m.embeds(f, p, tokenizer)[0] for f, p in PALI_CASES],
        PALI_LANGUAGE["seed"],
        halves=True,
    )
    write_pali3_common(folder, model)
    common.write_tensors(folder / "model.safetensors", pali3_state(model), {"format": "pt"})
    cases = pali3_goldens(folder, model, tokenizer)
    common.write_json(folder / "golden.json", common.header("pali3") | {"seed": seed, "cases": cases})
    common.log(f"model pali3: seed {seed}, greedy {[c['greedy']['tokens'] for c in cases]}, {size(folder)}")

    parts = MODELS / "pali3_parts"  # the same model in pieces, as `pali convert --vision --language --projector` takes it
    reset(parts)
    model.vision.save_pretrained(parts / "vision")
    write_preprocessor(parts / "vision", PALI_VISION["image_size"])
    model.language.save_pretrained(parts / "language")
    make_tokenizers.write_t5_folder(parts / "language", make_tokenizers.load("small"), 100)
    common.write_tensors(parts / "projector.safetensors",
                         {"weight": model.projector.weight, "bias": model.projector.bias})
    common.write_json(parts / "golden.json", common.header("pali3_parts") | {"golden_of": "pali3"})
    common.log(f"model pali3_parts: {size(parts)}")
    return model


# ---------------------------------------------------------------- variants: shards, half precision


def write_shards(folder, state, count):
    """Contiguous runs of the sorted names, and the index that transformers writes."""
    for old in folder.glob("model*.safetensors"):
        old.unlink()
    names = sorted(state)
    step = -(-len(names) // count)
    weight_map = {}
    for i in range(count):
        file = f"model-{i + 1:05d}-of-{count:05d}.safetensors"
        run = names[i * step : (i + 1) * step]
        common.write_tensors(folder / file, {n: state[n] for n in run}, {"format": "pt"})
        weight_map |= {n: file for n in run}
    total = sum(v.numel() * v.element_size() for v in state.values())
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")


def rounded(model, dtype):
    other = copy.deepcopy(model)
    for p in other.parameters():
        p.copy_(p.to(dtype).float())
    return other


def copy_folder(source, target):
    reset(target)
    for f in source.iterdir():
        if f.name not in ("golden.json", "golden.safetensors"):
            shutil.copy(f, target / f.name)


def make_variants(t5, pali3):
    from safetensors.torch import load_file

    # Shards: the same tensors, so the same goldens.
    folder = MODELS / "ul2_sharded"
    copy_folder(MODELS / "ul2", folder)
    write_shards(folder, load_file(str(MODELS / "ul2" / "model.safetensors")), 3)
    same_weights(t5, reload(type(t5), folder))
    common.write_json(folder / "golden.json", common.header("t5") | {"golden_of": "ul2"})

    # The vision tower under the names that transformers 5.23 saves: no "vision_model." in them.
    folder = MODELS / "pali3_sharded"
    copy_folder(MODELS / "pali3", folder)
    write_shards(folder, pali3_state(pali3, "vision_tower."), 3)
    common.write_json(folder / "golden.json", common.header("pali3") | {"golden_of": "pali3"})

    # Half precision on disk; the reference runs in f32 on the rounded weights.
    tokenizer = make_tokenizers.t5_tokenizer(MODELS / "ul2")
    for short, dtype in (("bf16", torch.bfloat16), ("f16", torch.float16)):
        folder = MODELS / f"ul2_{short}"
        copy_folder(MODELS / "ul2", folder)
        state = load_file(str(MODELS / "ul2" / "model.safetensors"))
        common.write_tensors(folder / "model.safetensors", {k: v.to(dtype) for k, v in state.items()},
                             {"format": "pt"})
        rewrite_config(folder, lambda c, d=dtype: c.__setitem__("dtype", str(d).split(".")[1]))
        model = reload(type(t5), folder)
        same_weights(rounded(t5, dtype), model)
        check_clear(model, [model.shared(torch.tensor([tokenizer(p).input_ids])) for p in PROMPTS], folder.name)
        cases = t5_goldens(folder, model, tokenizer, False)
        common.write_json(folder / "golden.json", common.header("t5") | {"weights": short, "cases": cases})
        common.log(f"model {folder.name}: {size(folder)}")

        folder = MODELS / f"pali3_{short}"
        copy_folder(MODELS / "pali3", folder)
        model = rounded(pali3, dtype)
        state = {k: v.to(dtype) for k, v in pali3_state(pali3).items()}
        common.write_tensors(folder / "model.safetensors", state, {"format": "pt"})
        check_clear(model.language, [model.embeds(f, p, tokenizer)[0] for f, p in PALI_CASES], folder.name)
        cases = pali3_goldens(folder, model, tokenizer, every_stage=False)
        common.write_json(folder / "golden.json", common.header("pali3") | {"weights": short, "cases": cases})
        common.log(f"model {folder.name}: {size(folder)}")


def check_clear(model, embeds, name):
    for c, e in enumerate(embeds):
        if not clear_enough(model, e, [1.0, 0.0, 2.0] if c == 0 else [1.0], noise=1e-3, margin=0.01):
            common.log(f"warning: {name} case {c} is close to a tie")


def readable():
    """The safetensors library writes files that only their owner can read."""
    for f in common.DATA.rglob("*.safetensors"):
        f.chmod(0o644)


def main():
    make_siglip_vision()
    make_siglip_two_tower()
    made = {}
    for name, spec in T5_MODELS.items():
        made[name] = make_t5(name, spec)
    pali3 = make_pali3()
    make_variants(made["ul2"], pali3)
    readable()


if __name__ == "__main__":
    main()
