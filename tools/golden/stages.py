"""The stages of a model's run, under the names that the engine reports them by (README.md)."""

import copy

import common
import make_posemb

torch = common.setup_torch()

import transformers as tf  # noqa: E402
from folders import IMAGES  # noqa: E402
from PIL import Image, ImageOps  # noqa: E402
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil  # noqa: E402


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


def seen_image(file):
    return ImageOps.exif_transpose(Image.open(IMAGES / file)).convert("RGB")


def pixels_of(file, size_px):
    processor = SiglipImageProcessorPil(size={"height": size_px, "width": size_px})
    return processor(seen_image(file), return_tensors="pt").pixel_values


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
