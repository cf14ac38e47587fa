"""The T5 family: T5 1.1, UL2, mT5, umT5, the original T5, Flan-T5."""

import common
import make_tokenizers
from folders import MODELS, reload, reset, rewrite_config, size
from generation import TARGETS, generation_goldens, logits_stages, search
from stages import encoder_stages
from weights import fill, generator, liven, same_weights

torch = common.setup_torch()

import transformers as tf  # noqa: E402

LONG = (  # about 150 tokens: every relative-position bucket of the encoder is used, the last one too
    "a cat sits on the table and the dog looks at a house near the river ; two birds stand next to a small boat, "
    "the old man runs to a street with three apples and 42.50 on a green tree. How many apples are there? "
    "Answer in EN: what is in the image? The white snow sleeps under a wooden chair and a red car plays with the window"
)

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


def hub_style(config):
    """As files on the hub are: the old switch where it said something, nothing that transformers 5 added."""
    scaled = config.pop("scale_decoder_outputs")
    config.pop("tie_word_embeddings")
    if not scaled:
        config["tie_word_embeddings"] = False
    for key in ("dense_act_fn", "is_gated_act", "classifier_dropout", "is_decoder"):
        config.pop(key, None)
    config["transformers_version"] = "4.23.1"


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
