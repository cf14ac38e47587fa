"""Answers of the built-in model to its examples, by transformers in f32: tests/data/pali_mini.json.

The modules are transformers' own, with the weights that models/pali-mini ships; nothing of this project computes.
"""

import json

from types import SimpleNamespace

import common
import generation
import sentencepiece
from pali3 import Pali3
from safetensors.torch import load_file

torch = common.setup_torch()

import transformers as tf  # noqa: E402

MODEL = common.ROOT / "models" / "pali-mini"
LONGEST = 40
# The verb and its words; the prompt is the verb's template of config.json, filled.
QUESTIONS = [
    ("one-thing.png", ["caption"]),
    ("one-thing.png", ["vqa", "what is in the image?"]),
    ("one-thing.png", ["detect", "birthday cake"]),
    ("two-things.png", ["caption"]),
    ("two-things.png", ["vqa", "how many things are there?"]),
    ("three-things.png", ["vqa", "how many things are there?"]),
    ("three-things.png", ["caption", "--lang", "DE"]),
    ("word.png", ["ocr"]),
    ("garment.png", ["caption"]),
]


def load():
    config = json.loads((MODEL / "config.json").read_text())
    state = {k: v.float() for k, v in load_file(MODEL / "model.safetensors").items()}

    def part(prefix):
        return {k[len(prefix):]: v for k, v in state.items() if k.startswith(prefix)}

    vision = tf.SiglipVisionModel._from_config(tf.SiglipVisionConfig(**config["vision_config"]),
                                               attn_implementation="eager")
    vision.load_state_dict(part("vision_tower.vision_model."))
    language = tf.T5ForConditionalGeneration._from_config(tf.T5Config(**config["text_config"]))
    missing, unexpected = language.load_state_dict(part("language_model."), strict=False)
    assert not unexpected and {k.split(".", 1)[-1] for k in missing} <= {"embed_tokens.weight", "weight"}, missing
    language.tie_weights()
    projector = torch.nn.Linear(vision.config.hidden_size, language.config.d_model)
    projector.load_state_dict(part("multi_modal_projector.linear."))
    for module in (vision, language, projector):
        module.eval()
    return Pali3(vision, projector, language), config


def load_tokenizer():
    """As T5Tokenizer: the pieces' ids, then </s>."""
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(MODEL / "spiece.model"))
    return pieces, lambda text: SimpleNamespace(input_ids=pieces.encode(text) + [1])


def prompt_of(templates, verb, words):
    lang = words[words.index("--lang") + 1] if "--lang" in words else templates["default_lang"]
    return templates[verb].format(lang=lang, question=words[0] if words else "", objects=words[0] if words else "")


def main():
    generation.NEW_TOKENS = LONGEST
    model, config = load()
    pieces, tokenizer = load_tokenizer()
    cases = []
    for image, (verb, *words) in QUESTIONS:
        prompt = prompt_of(config["prompts"], verb, words)
        embeds, _ = model.embeds([MODEL / "examples" / image], prompt, tokenizer)
        out = generation.generate(model.language, embeds)
        tokens = generation.cut(out.sequences[0], embeds)
        logprobs, logits = generation.teacher_forced(model.language, embeds, tokens)
        best = logits.double().topk(2).values
        margin = (best[:, 0] - best[:, 1]).min().item()
        assert margin > 0.01, f"{image}: a choice too close to be kept by other arithmetic"
        cases.append({"image": image, "verb": verb, "words": words, "prompt": prompt, "tokens": tokens,
                      "text": pieces.decode(tokens), "logprob": sum(logprobs)})
        common.log(f"pali-mini: {verb} {image}: {pieces.decode(tokens)!r}, margin {margin:.3f}")
    common.write_json(common.DATA / "pali_mini.json", common.header("pali_mini") | {"cases": cases})


if __name__ == "__main__":
    main()
