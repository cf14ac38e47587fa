"""SigLIP: the vision tower alone, and both towers."""

import common
import make_tokenizers
from folders import MODELS, reload, reset, size, write_preprocessor
from stages import RESIZED, pixels_of, resized_stages, text_stages, vision_stages
from weights import fill, generator, same_weights

torch = common.setup_torch()

import transformers as tf  # noqa: E402


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
