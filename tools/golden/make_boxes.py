"""A PaliGemma that is built to answer with known <loc> and <seg> tokens (tests/data/models/paligemma_boxes).

Its blocks add nothing to the residual stream (their output projections are zero), so an answer depends on the last token
alone: the row of the embedding table is a code of eight signs, and the head's row of the token that follows is the same
code. Boxes and masks are big_vision's arithmetic on those tokens; transformers answers with them too.
"""

import common
import make_masks
import make_tokenizers
import numpy as np
from folders import MODELS, reset, size, write_preprocessor
from paligemma import hub_state, processor_of
from weights import draw, fill, generator

torch = common.setup_torch()

import transformers as tf  # noqa: E402

NAME, IMAGE_SIZE, WIDTH, SHARPNESS = "paligemma_boxes", 28, 8, 1.5
TOKENIZER = make_tokenizers.train_gemma(330, 1024, 128)
# y0 x0 y1 x1, the codes of the mask, and the label: every token at most once. The third is no box: y1 < y0.
GROUPS = [
    ((0, 128, 511, 1023), [0, 17, 34, 51, 68, 85, 102, 119, 1, 18, 35, 52, 69, 86, 103, 120], ["c", "a", "t"]),
    ((300, 40, 1022, 600), [127, 2, 4, 8, 16, 32, 64, 3, 6, 12, 24, 48, 96, 5, 10, 20], ["d", "o", "g"]),
    ((700, 10, 200, 900), [], ["he"]),
]
SEPARATORS = [";", "<0x3B>"]  # the same text, two tokens
PLACES = [(37, 53), (53, 37), (23, 14), (14, 23)]  # width, height


def answer(pieces):
    out = []
    for i, (box, codes, label) in enumerate(GROUPS):
        out += [SEPARATORS[i - 1]] if i else []
        out += [f"<loc{v:04}>" for v in box] + [f"<seg{v:03}>" for v in codes] + label
    ids = [pieces.index(p) for p in out]
    assert len(set(ids)) == len(ids)
    return ids


def build(pieces, vocab, image_token):
    text = dict(model_type="gemma", vocab_size=vocab, hidden_size=WIDTH, intermediate_size=8, num_hidden_layers=1,
                num_attention_heads=2, num_key_value_heads=1, head_dim=4, tie_word_embeddings=False)
    vision = dict(model_type="siglip_vision_model", hidden_size=8, intermediate_size=8, num_hidden_layers=1,
                  num_attention_heads=2, image_size=IMAGE_SIZE, patch_size=14, vision_use_head=False,
                  projection_dim=WIDTH)
    config = tf.PaliGemmaConfig(vision_config=vision, text_config=text, image_token_index=image_token,
                                projection_dim=WIDTH, tie_word_embeddings=False)
    model = tf.PaliGemmaForConditionalGeneration._from_config(config, attn_implementation="eager").eval()
    g = generator(7)
    fill(model.model.vision_tower, g)
    for p in [*model.model.multi_modal_projector.parameters(), *model.model.language_model.parameters()]:
        p.copy_(draw(p.shape, 0.3, g))
    language, head = model.model.language_model, model.lm_head.weight
    for name, p in language.named_parameters():
        if "norm" in name or "o_proj" in name or "down_proj" in name:
            p.zero_()
    table = language.embed_tokens.weight
    assert head.data_ptr() != table.data_ptr()
    head.zero_()
    chain = [pieces.index("\n")] + answer(pieces) + [1]
    codes = torch.randperm(2**WIDTH, generator=g)[: len(chain) - 1]
    signs = torch.stack([(codes >> i & 1) * 2.0 - 1.0 for i in range(WIDTH)], 1)
    table[chain[:-1]] = signs
    head[chain[1:]] = SHARPNESS * signs
    for p in model.parameters():
        p.copy_(p.to(torch.bfloat16).float())
    return model


def places(tensors):
    """Boxes in pixels, and the masks, of pictures of several sizes."""
    masks = [make_masks.decode(tensors, codes) for _, codes, _ in GROUPS[:2]]
    out = []
    for width, height in PLACES:
        boxes = []
        for (box, _, label), mask64 in zip(GROUPS, masks):
            y0, x0, y1, x1 = box
            full, values = make_masks.pasted(mask64, (x0, y0, x1, y1), width, height)
            boxes.append({"label": "".join(label), "area": int(full.sum()), "counts": make_masks.run_lengths(full),
                          "box": [x0 / 1023 * width, y0 / 1023 * height, x1 / 1023 * width, y1 / 1023 * height],
                          "coco": make_masks.coco_string(full), "nearest_to_zero": float(np.abs(values).min())})
        out.append({"width": width, "height": height, "boxes": boxes})
    return out


def main():
    folder = MODELS / NAME
    reset(folder)
    make_tokenizers.write_gemma_folder(folder, TOKENIZER)
    write_preprocessor(folder, IMAGE_SIZE)
    processor = processor_of(folder)
    vocab = -(-(processor.image_token_id + 1) // 8) * 8
    pieces = processor.tokenizer.convert_ids_to_tokens(range(processor.image_token_id))
    model = build(pieces, vocab, processor.image_token_id)
    ids = processor.tokenizer("<bos>detect cat ; dog\n", return_tensors="pt", add_special_tokens=False).input_ids
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "token_type_ids": torch.zeros_like(ids)}
    expected = answer(pieces)
    found, logprobs = list(ids[0]), []
    for _ in range(len(expected) + 1):
        row = torch.log_softmax(model(input_ids=torch.tensor([found]), token_type_ids=torch.zeros(1, len(found), dtype=int),
                                      use_cache=False).logits[0, -1], 0)
        found.append(int(row.argmax()))
        logprobs.append(float(row.max()))
    assert found[len(ids[0]):] == expected + [1], found[len(ids[0]):]
    state = {k: v.to(torch.bfloat16) for k, v in hub_state(model).items()}
    state["language_model.lm_head.weight"] = model.lm_head.weight.to(torch.bfloat16)
    common.write_tensors(folder / "model.safetensors", state, {"format": "pt"})
    model.config.save_pretrained(folder)
    tensors = dict(np.load(make_masks.FOLDER / "vae-oid.npz"))
    common.write_json(folder / "golden.json", common.header("paligemma") | {
        "tokens": expected, "token_logprobs": logprobs, "places": places(tensors)})
    common.log(f"model {NAME}: {len(expected)} tokens, {size(folder)}")


if __name__ == "__main__":
    main()
