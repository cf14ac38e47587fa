"""Other encoders before the same language model: a ViT of a classifier, and CLIP's vision tower.

The language model is that of `pali3`; tower and projector are drawn until its choices are clear.
"""

import common
import make_posemb
from folders import IMAGES, MODELS, reload, reset, rewrite_config, size
from generation import check_clear, search
from pali3 import PALI_CASES, Pali3, pali3_goldens
from stages import seen_image
from weights import draw, fill, generator, rounded, same_weights

import make_tokenizers

torch = common.setup_torch()

import transformers as tf  # noqa: E402
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil  # noqa: E402
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil  # noqa: E402

SIZE, PATCH, RESIZED = 30, 9, 48  # px: 3 x 3 and 5 x 5 patches, 3 px remain
SHAPE = dict(hidden_size=24, intermediate_size=44, num_hidden_layers=2, num_attention_heads=3, image_size=SIZE,
             patch_size=PATCH)


class Encoder:
    """What differs between the two. `skip`: tokens at the beginning that the language model does not see."""

    def __init__(self, seed, skip, config, tower, processor):
        self.seed, self.skip, self.config, self.tower, self.processor = seed, skip, config, tower, processor


ENCODERS = {
    # VisionEncoderDecoderModel hands over ViTModel's last_hidden_state whole
    "vit": Encoder(41000, 0, tf.ViTConfig(**SHAPE, num_labels=3), tf.ViTModel,
                   ViTImageProcessorPil(size={"height": SIZE, "width": SIZE})),
    # LlavaModel with vision_feature_select_strategy "default"
    "clip": Encoder(42000, 1, tf.CLIPVisionConfig(**SHAPE, projection_dim=6), tf.CLIPVisionModel,
                    CLIPImageProcessorPil(size={"shortest_edge": SIZE}, crop_size={"height": SIZE, "width": SIZE})),
}


def parts_of(tower):
    """Its patch convolution, and its blocks."""
    if isinstance(tower, tf.ViTModel):
        return tower.embeddings.patch_embeddings.projection, tower.layers
    return tower.embeddings.patch_embedding, tower.encoder.layers


def tower_stages(tower, pixels):
    convolution, layers = parts_of(tower)
    blocks, patches = [], []
    hooks = [layer.register_forward_hook(lambda m, i, o: blocks.append(o)) for layer in layers]
    hooks.append(convolution.register_forward_hook(lambda m, i, o: patches.append(o)))
    embed = tower.embeddings(pixels)
    patches.clear()
    tokens = tower(pixels).last_hidden_state
    for hook in hooks:
        hook.remove()
    stages = {"pixels": pixels[0], "patches": patches[0].flatten(2).transpose(1, 2)[0], "vision.embed": embed[0]}
    stages |= {f"vision.block.{i}": (b[0] if isinstance(b, tuple) else b)[0] for i, b in enumerate(blocks)}
    return stages | {"vision.tokens": tokens[0]}


class Composed(Pali3):
    def __init__(self, encoder, vision, projector, language):
        super().__init__(vision, projector, language)
        self.encoder = encoder

    def embeds(self, files, prompt, tokenizer, stages=None):
        parts = []
        for j, file in enumerate(files):
            pixels = self.encoder.processor(seen_image(file), return_tensors="pt").pixel_values
            seen = tower_stages(self.vision, pixels)
            seen["projected"] = self.projector(seen["vision.tokens"][self.encoder.skip :])
            parts.append(seen["projected"])
            if stages is not None:
                stages |= {f"image{j}/{k}": v for k, v in seen.items()}
        ids = tokenizer(prompt).input_ids
        parts.append(self.language.shared(torch.tensor(ids)))
        return torch.cat(parts)[None], ids


def build_tower(encoder, g):
    tower = encoder.tower._from_config(encoder.config, attn_implementation="eager").eval()
    fill(tower, g)
    for name, p in sorted(tower.named_parameters()):
        if "cls_token" in name or "class_embedding" in name:
            p.copy_(draw(p.shape, 1.0, g))
        elif "position_embedding" in name:
            p.copy_(draw(p.shape, 0.5, g))
        elif name == "pre_layrnorm.weight":
            p.copy_(1 + draw(p.shape, 0.15, g))
    if isinstance(tower, tf.ViTModel):  # small embeddings: an eps of 1e-6 would be seen
        for p in tower.embeddings.parameters():
            p *= 0.01
    return tower


def build(encoder, language, seed):
    g = generator(seed)
    tower = build_tower(encoder, g)
    projector = torch.nn.Linear(SHAPE["hidden_size"], language.config.d_model)
    projector.weight.copy_(draw(projector.weight.shape, SHAPE["hidden_size"] ** -0.5, g))
    projector.bias.copy_(draw(projector.bias.shape, 0.2, g))
    return Composed(encoder, tower, projector, language)


def whole_model(name, tower):
    """The tower as people have it: in a classifier, or in the two towers of CLIP."""
    if name == "vit":
        whole = tf.ViTForImageClassification._from_config(tower.config, attn_implementation="eager").eval()
        inner = whole.vit
    else:
        text = dict(hidden_size=8, intermediate_size=12, num_hidden_layers=1, num_attention_heads=2, vocab_size=11,
                    max_position_embeddings=5, bos_token_id=0, eos_token_id=1, projection_dim=6)
        config = tf.CLIPConfig(text_config=text, vision_config=tower.config.to_dict(), projection_dim=6)
        whole = tf.CLIPModel._from_config(config, attn_implementation="eager").eval()
        inner = whole.vision_model
    fill(whole, generator(1))
    state = {k: v for k, v in tower.state_dict().items() if k in inner.state_dict()}
    inner.load_state_dict(state)
    return whole


def write_projector(folder, projector, dtype=torch.float32):
    common.write_tensors(folder / "projector.safetensors",
                         {"weight": projector.weight.to(dtype), "bias": projector.bias.to(dtype)})


def resized_stages(encoder, tower, file):
    """At another resolution: patch positions as big_vision resizes them, the class token's as it is."""
    old, new = SIZE // PATCH, RESIZED // PATCH
    state = tower.state_dict()
    (name,) = [k for k in state if "position_embedding" in k]
    table = state[name].reshape(old * old + 1, -1)
    patches = table[1:].double().numpy().reshape(old, old, -1)
    patches = torch.from_numpy(make_posemb.resample(patches, (new, new)).reshape(new * new, -1)).float()
    config = type(tower.config)(**(SHAPE | {"image_size": RESIZED}))
    other = type(tower)._from_config(config, attn_implementation="eager").eval()
    table = torch.cat([table[:1], patches])
    state[name] = table[None] if state[name].dim() == 3 else table
    other.load_state_dict(state)
    square = {"height": RESIZED, "width": RESIZED}
    how = {"size": {"shortest_edge": RESIZED}, "crop_size": square} if encoder.skip else {"size": square}
    pixels = type(encoder.processor)(**how)(seen_image(file), return_tensors="pt").pixel_values
    stages = tower_stages(other, pixels)
    return {f"resized/{k}": stages[k] for k in ("vision.embed", "vision.tokens")}


def add_resized(folder, encoder, tower):
    from safetensors.torch import load_file

    file = folder / "golden.safetensors"
    common.write_tensors(file, load_file(str(file)) | resized_stages(encoder, tower, PALI_CASES[0][0][0]))


def write_old_preprocessor(folder, encoder):
    """As older files on the hub have it: numbers for sizes."""
    p = encoder.processor
    how = {"do_normalize": True, "do_resize": True, "image_mean": list(p.image_mean), "image_std": list(p.image_std),
           "resample": int(p.resample), "size": SIZE}
    if encoder.skip:
        how |= {"crop_size": SIZE, "do_center_crop": True, "feature_extractor_type": "CLIPFeatureExtractor"}
    else:
        how |= {"feature_extractor_type": "ViTFeatureExtractor"}
    common.write_json(folder / "preprocessor_config.json", how)


def make_encoder(name, encoder):
    folder, half = MODELS / name, MODELS / f"{name}_bf16"
    reset(folder), reset(half)
    language = reload(tf.T5ForConditionalGeneration, MODELS / "pali3_parts" / "language")
    tokenizer = make_tokenizers.t5_tokenizer(MODELS / "pali3_parts" / "language")
    model, seed = search(
        lambda seed: build(encoder, language, seed),
        lambda m: [m.embeds(f, p, tokenizer)[0] for f, p in PALI_CASES],
        encoder.seed,
        halves=True,
    )
    whole = whole_model(name, model.vision)
    whole.save_pretrained(folder)
    encoder.processor.save_pretrained(folder)
    same_weights(whole, reload(type(whole), folder))
    write_projector(folder, model.projector)
    cases = pali3_goldens(folder, model, tokenizer)
    add_resized(folder, encoder, model.vision)
    common.write_json(folder / "golden.json", common.header("encoder") | {
        "seed": seed, "language": "pali3", "resized": {"image": PALI_CASES[0][0][0], "resolution": RESIZED},
        "cases": cases})
    common.log(f"model {name}: seed {seed}, greedy {[c['greedy']['tokens'] for c in cases]}, {size(folder)}")

    # The tower alone, in bf16; the reference runs in f32 on the rounded weights.
    model = rounded(model, torch.bfloat16)
    model.vision.to(torch.bfloat16).save_pretrained(half)
    model.vision.float()
    same_weights(model.vision, reload(type(model.vision), half))
    write_old_preprocessor(half, encoder)
    write_projector(half, model.projector, torch.bfloat16)
    check_clear(model.language, [model.embeds(f, p, tokenizer)[0] for f, p in PALI_CASES], half.name)
    cases = pali3_goldens(half, model, tokenizer, every_stage=False)
    common.write_json(half / "golden.json",
                      common.header("encoder") | {"weights": "bf16", "language": "pali3_bf16", "cases": cases})
    common.log(f"model {half.name}: {size(half)}")


def main():
    for name, encoder in ENCODERS.items():
        make_encoder(name, encoder)


if __name__ == "__main__":
    main()
