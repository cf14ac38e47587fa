"""Writes the tiny models with random weights and their goldens (tests/data/models).

Authority: the modeling code of transformers, run in f32 on one thread, attention "eager", and use_cache=False
(its cache is wrong where the decoder has more layers than the encoder). Weights are drawn so that greedy output varies;
seeds are searched until the choices are clear (see `clear_enough`), so that rounding cannot turn a token.
"""

import common
import make_tokenizers
from folders import MODELS, copy_folder, readable, reload, rewrite_config, size, write_shards
from encoders import ENCODERS, make_encoder
from generation import check_clear
from pali3 import PALI_CASES, make_pali3, pali3_goldens, pali3_state
from paligemma import PALIGEMMA_MODELS, make_paligemma
from siglip import make_siglip_two_tower, make_siglip_vision
from t5 import PROMPTS, T5_MODELS, make_t5, t5_goldens
from t5gemma2 import make_t5gemma2
from weights import rounded, same_weights

torch = common.setup_torch()


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


def main():
    make_siglip_vision()
    make_siglip_two_tower()
    made = {}
    for name, spec in T5_MODELS.items():
        made[name] = make_t5(name, spec)
    pali3 = make_pali3()
    make_variants(made["ul2"], pali3)
    for name, encoder in ENCODERS.items():
        make_encoder(name, encoder)
    for name, spec in PALIGEMMA_MODELS.items():
        make_paligemma(name, spec)
    make_t5gemma2()
    readable()


if __name__ == "__main__":
    main()
