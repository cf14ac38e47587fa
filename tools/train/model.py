"""The PaLI-3 of this folder, composed of transformers' own classes: torch is the reference by construction.

SigLIP ViT (tokens after its last LayerNorm, before pooling) -> linear projector -> prepended to the
embedded prompt -> T5 encoder-decoder. The SigLIP text tower stands beside it for classify and embed.
"""

import json
import shutil
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import (SiglipTextConfig, SiglipTextModel, SiglipVisionConfig, SiglipVisionModel, T5Config,
                          T5ForConditionalGeneration)
from transformers.modeling_outputs import BaseModelOutput

import prompts
from tokenizer import PAD, Tokenizer

# transformers 5.23 ties T5's head always and scales its input by d_model**-0.5 ("scale_decoder_outputs")
# unless a config says "tie_word_embeddings": false. So this model is tied and scaled, as PaLI's T5 1.0 form.
MINI = {
    "vision_config": {"model_type": "siglip_vision_model", "hidden_size": 256, "intermediate_size": 768,
                      "num_hidden_layers": 6, "num_attention_heads": 4, "num_channels": 3, "image_size": 112,
                      "patch_size": 14, "hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-6,
                      "attention_dropout": 0.0, "vision_use_head": True},
    "text_config": {"model_type": "t5", "vocab_size": 3072, "d_model": 256, "d_kv": 64, "d_ff": 512,
                    "num_layers": 2, "num_decoder_layers": 2, "num_heads": 4,
                    "relative_attention_num_buckets": 32, "relative_attention_max_distance": 128,
                    "dropout_rate": 0.0, "layer_norm_epsilon": 1e-6, "feed_forward_proj": "gated-silu",
                    "pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0},
    "siglip_text_config": {"model_type": "siglip_text_model", "vocab_size": 3072, "hidden_size": 128,
                           "intermediate_size": 512, "num_hidden_layers": 2, "num_attention_heads": 4,
                           "max_position_embeddings": 32, "projection_size": 256,
                           "hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-6, "attention_dropout": 0.0,
                           "pad_token_id": 1, "bos_token_id": None, "eos_token_id": 1},
}


def mini(size):
    """The configuration for pictures of that side."""
    return MINI | {"vision_config": MINI["vision_config"] | {"image_size": size}}


class Pali3(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config
        vision, text = config["vision_config"], config["text_config"]
        self.vision_tower = SiglipVisionModel(SiglipVisionConfig(**vision))
        self.text_tower = SiglipTextModel(SiglipTextConfig(**config["siglip_text_config"]))
        self.language_model = T5ForConditionalGeneration(T5Config(**text))
        for tower in (self.vision_tower, self.text_tower, self.language_model):
            tower.set_attn_implementation("eager")  # on a CPU in bf16 a quarter faster in training than sdpa
        self.projector = nn.Linear(vision["hidden_size"], text["d_model"], bias=True)
        self.logit_scale = nn.Parameter(torch.tensor([2.3]))
        self.logit_bias = nn.Parameter(torch.tensor([-5.0]))
        # Adam moves every weight alike: embeddings of deviation 1 (T5's own) would hardly learn.
        nn.init.normal_(self.language_model.shared.weight, std=0.3)
        nn.init.normal_(self.projector.weight, std=0.3 * vision["hidden_size"] ** -0.5)
        nn.init.zeros_(self.projector.bias)

    def see(self, pixels):
        """uint8 images (n, side, side, 3) -> SigLIP's output (last_hidden_state, pooler_output)."""
        dtype = self.projector.weight.dtype
        x = (pixels.permute(0, 3, 1, 2).float() / 127.5 - 1).to(dtype)
        return self.vision_tower(pixel_values=x)

    def read(self, visual, prompt_ids, mask):
        """Projected visual tokens and prompts (padded with 0 at the right) -> the encoder's memory and mask."""
        x = torch.cat([visual, self.language_model.shared(prompt_ids)], 1)
        mask = torch.cat([mask.new_ones(visual.shape[:2]), mask], 1)
        return self.language_model.encoder(inputs_embeds=x, attention_mask=mask).last_hidden_state, mask

    @torch.no_grad()
    def project(self, pixels):
        """uint8 images -> projected visual tokens."""
        return self.projector(self.see(pixels).last_hidden_state)

    @torch.no_grad()
    def answer(self, visual, prompt_ids, longest, **options):
        """Greedy answers (token ids) to one prompt about each image, given its projected visual tokens."""
        width = max(len(p) for p in prompt_ids)
        ids = torch.tensor([list(p) + [PAD] * (width - len(p)) for p in prompt_ids])
        memory, mask = self.read(visual, ids, (ids != PAD).long())
        return self.language_model.generate(encoder_outputs=BaseModelOutput(memory), attention_mask=mask,
                                            max_new_tokens=longest, do_sample=False, **options)


def exported_state(model):
    """Weights by the names of a published composite checkpoint, each tensor once, bf16."""
    out = {}
    for k, v in model.state_dict().items():
        head, _, rest = k.partition(".")
        if k.endswith("position_ids"):
            continue
        if head == "vision_tower":
            k = "vision_tower." + ("" if rest.startswith("vision_model.") else "vision_model.") + rest
        elif head == "text_tower":
            k = "text_tower." + ("" if rest.startswith("text_model.") else "text_model.") + rest
        elif head == "projector":
            k = "multi_modal_projector.linear." + rest
        elif head == "language_model" and (rest == "lm_head.weight" or rest.endswith("embed_tokens.weight")):
            continue
        out[k] = v.detach().to(torch.bfloat16).contiguous().clone()
    return out


def config_json(config):
    text = T5Config(**config["text_config"]).to_dict()
    text = {k: text[k] for k in [*config["text_config"], "is_encoder_decoder", "is_gated_act", "dense_act_fn",
                                 "scale_decoder_outputs", "tie_word_embeddings"] if k in text}
    return {"model_type": "pali3", "architectures": ["Pali3ForConditionalGeneration"],
            "vision_config": config["vision_config"], "text_config": text,
            "siglip_text_config": config["siglip_text_config"], "projector_bias": True,
            "prompts": prompts.PROMPTS, "dtype": "bfloat16"}


def export(model, tokenizer_path, out):
    """Writes the Hugging Face-shaped folder: beside it first, then renamed."""
    out = Path(out)
    part = out.with_name(out.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    size = model.config["vision_config"]["image_size"]
    files = {
        "config.json": config_json(model.config),
        "preprocessor_config.json": {
            "image_processor_type": "SiglipImageProcessor", "do_convert_rgb": True, "do_resize": True,
            "size": {"height": size, "width": size}, "resample": 3, "do_rescale": True,
            "rescale_factor": 1 / 255, "do_normalize": True, "image_mean": [0.5] * 3, "image_std": [0.5] * 3},
        "generation_config.json": {"decoder_start_token_id": 0, "eos_token_id": 1, "pad_token_id": 0,
                                   "max_new_tokens": 64},
    }
    for name, value in files.items():
        (part / name).write_text(json.dumps(value, indent=2) + "\n")
    shutil.copy(tokenizer_path, part / "spiece.model")
    save_file(exported_state(model), part / "model.safetensors", metadata={"format": "pt"})
    old = out.with_name(out.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if out.exists():
        out.rename(old)
    part.rename(out)
    shutil.rmtree(old, ignore_errors=True)


def load(folder, dtype=torch.float32):
    """(model, tokenizer) of an exported folder."""
    folder = Path(folder)
    config = json.loads((folder / "config.json").read_text())
    model = Pali3({k: config[k] for k in ("vision_config", "text_config", "siglip_text_config")})
    weights = load_file(folder / "model.safetensors")
    state = {}
    for k in model.state_dict():
        head, _, rest = k.partition(".")
        if head in ("vision_tower", "text_tower"):
            middle = "vision_model." if head == "vision_tower" else "text_model."
            source = head + "." + ("" if rest.startswith(middle) else middle) + rest
        elif head == "projector":
            source = "multi_modal_projector.linear." + rest
        elif head == "language_model" and (rest == "lm_head.weight" or rest.endswith("embed_tokens.weight")):
            source = "language_model.shared.weight"
        else:
            source = k
        if source in weights:
            state[k] = weights[source]
    missing = [k for k in model.load_state_dict(state, strict=False).missing_keys if "position_ids" not in k]
    if missing:
        raise SystemExit(f"{folder}: no {missing[:5]}")
    return model.to(dtype).eval(), Tokenizer(folder / "spiece.model")


def resized(positions, grid):
    """Position embeddings (n * n, width) for a grid x grid picture, as in big_vision and the engine: bilinear, corners on corners."""
    old = round(len(positions) ** 0.5)
    table = positions.float().T.reshape(1, -1, old, old)
    return F.interpolate(table, (grid, grid), mode="bilinear", align_corners=True)[0].flatten(1).T.contiguous()


def start(path, side):
    """Weights for a stage to start from, by train.py's names, of a checkpoint or an exported folder; for pictures of that side."""
    if path.is_dir():
        weights = {"net." + k: v for k, v in load(path)[0].state_dict().items()}
    else:
        weights = torch.load(path)["weights"]
    name, grid = "net.vision_tower.embeddings.position_embedding.weight", side // MINI["vision_config"]["patch_size"]
    if len(weights[name]) != grid * grid:
        weights[name] = resized(weights[name], grid)
    return weights


def sizes(model):
    """Parameters by part, in millions."""
    parts = {name: sum(p.numel() for p in module.parameters()) / 1e6 for name, module in model.named_children()}
    return {k: round(v, 3) for k, v in parts.items()} | {"without text tower": round(
        sum(v for k, v in parts.items() if k != "text_tower"), 3)}
