"""PaLI-3, composed of a SigLIP vision tower, a linear projector and a UL2-style language model; and its parts."""

import json

import common
import make_tokenizers
from folders import MODELS, reset, size, write_preprocessor
from generation import STEPS, TARGETS, generation_goldens, logits_stages, search
from stages import encoder_stages, pixels_of, vision_stages
from t5 import build_t5
from weights import draw, fill, generator

torch = common.setup_torch()

import transformers as tf  # noqa: E402

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
