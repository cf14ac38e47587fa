"""Trains the tiny SentencePiece models and writes their goldens (tests/data/tokenizers).

t5      nmt_nfkc, pieces only; transformers adds 100 <extra_id_N> behind them (id = pieces + 99 - N)
mt5     16 sentinels INSIDE the model as user-defined pieces "▁<extra_id_N>", descending, as seqio makes mC4's
siglip  lower-case text, for SiglipTokenizer
small   like t5

All but t5 have the normaliser "identity": the character map of nmt_nfkc takes 240 KB in every file.
"""

import io
import random

import common

TOKENIZERS = common.DATA / "tokenizers"

_SUBJECTS = "a cat,the dog,two birds,a red car,the old man,a small boat,three apples,a green tree".split(",")
_VERBS = "sits on,looks at,stands near,runs to,sleeps under,is next to,jumps over,plays with".split(",")
_OBJECTS = "the table,a house,the blue sky,a wooden chair,the river,white snow,a street,the window".split(",")
_PHRASES = [
    "Answer in EN: what is in the image?",
    "Answer in FR: que voit-on ici?",
    "Generate the alt_text in EN at 0",
    "Generate the ocr_text in EN:",
    "detect: cat ; dog",
    "How many apples are there? 3",
    "Größe, naïve café, straße, über",
    "The price is 42.50 (about 7%).",
    "x=1, y=2; z=30 - 45 / 60",
]


def corpus(lower):
    rng = random.Random(7)
    lines = []
    for _ in range(600):
        line = f"{rng.choice(_SUBJECTS)} {rng.choice(_VERBS)} {rng.choice(_OBJECTS)}"
        if rng.random() < 0.3:
            line = line.capitalize() + "."
        lines.append(line)
    for _ in range(12):
        lines += _PHRASES
    # Made-up words of shared syllables: many pieces, so that the best path is not the only one.
    syllables = [c + v for c in "bdfgklmnprst" for v in "aeiou"]
    words = ["".join(rng.choice(syllables) for _ in range(rng.randint(1, 4))) for _ in range(150)]
    lines += [" ".join(rng.choice(words) for _ in range(6)) for _ in range(300)]
    if lower:
        drop = str.maketrans("", "", "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~")
        lines = [line.lower().translate(drop) for line in lines]
    return lines


def train(name, vocab_size, rule="nmt_nfkc", lower=False):
    import sentencepiece as spm

    model = io.BytesIO()
    spm.SentencePieceTrainer.train(
        sentence_iterator=iter(corpus(lower)),
        model_writer=model,
        model_type="unigram",
        vocab_size=vocab_size,
        normalization_rule_name=rule,
        character_coverage=1.0,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        num_threads=1,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    return model.getvalue()


def train_gemma(vocab_size, locations=12, segments=6, more=()):
    """BPE with byte fallback, no prefix space, line breaks and runs of spaces as pieces, `<loc>` and `<seg>` behind
    them: as paligemma_tokenizer.model is made, but smaller."""
    import sentencepiece as spm
    from sentencepiece import sentencepiece_model_pb2 as pb

    model = io.BytesIO()
    spm.SentencePieceTrainer.train(
        sentence_iterator=iter(corpus(lower=False)),
        model_writer=model,
        model_type="bpe",
        vocab_size=vocab_size,
        normalization_rule_name="identity",
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        byte_fallback=True,
        user_defined_symbols=["\n", "\n\n", "\t", "▁▁", "▁▁▁"],
        character_coverage=1.0,
        pad_id=0, pad_piece="<pad>", eos_id=1, eos_piece="<eos>", bos_id=2, bos_piece="<bos>", unk_id=3,
        num_threads=1,
        minloglevel=2,
    )
    proto = pb.ModelProto()
    proto.ParseFromString(model.getvalue())
    names = [f"<loc{i:04}>" for i in range(locations)] + [f"<seg{i:03}>" for i in range(segments)]
    names += more
    for name in names:
        proto.pieces.add(piece=name, score=0.0, type=pb.ModelProto.SentencePiece.USER_DEFINED)
    return proto.SerializeToString()


def write_gemma_folder(folder, blob, extra=None):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.model").write_bytes(blob)
    common.write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "GemmaTokenizer",
            "bos_token": "<bos>",
            "eos_token": "<eos>",
            "pad_token": "<pad>",
            "unk_token": "<unk>",
            "add_bos_token": True,
            "add_eos_token": False,
            "model_max_length": 512,
        } | (extra or {}),
    )


def with_sentinels(blob, count):
    """seqio's way: '▁<extra_id_N>' appended in descending order, user defined, score 0."""
    from sentencepiece import sentencepiece_model_pb2 as pb

    proto = pb.ModelProto()
    proto.ParseFromString(blob)
    for i in reversed(range(count)):
        proto.pieces.add(piece=f"▁<extra_id_{i}>", score=0.0, type=pb.ModelProto.SentencePiece.USER_DEFINED)
    return proto.SerializeToString()


STRINGS = [
    "",
    " ",
    "a cat sits on the table",
    "A cat sits on the table.",
    "  leading and   multiple    spaces  ",
    "line one\nline two",
    "tab\tand\r\nreturn",
    "no\u00a0break\u3000wide space",
    "Answer in EN: what is in the image?",
    "Generate the alt_text in EN at 0",
    "detect: cat ; dog",
    "3 apples, 42.50 (about 7%)",
    "Größe naïve café straße",
    "cafe\u0301 nai\u0308ve",
    "ﬁne ﬂow ① ² ½ ™ ｆｕｌｌ ｗｉｄｔｈ",
    "Å \u212b \u2126 ㎏",
    "…three dots… “quotes” ‘single’ — dash",
    "🐱",
    "a 🐱 and a 🐶🐶🐶 here",
    "日本語のテキスト",
    "the 日本 sky",
    "Привет мир",
    "unknown ΩΩΩ run ΨΨ end",
    "zero\u200bwidth\u200djoin",
    "\u00ad soft hyphen",
    "▁ underline ▁▁ marks",
    "a_b-c/d\\e",
    "UPPER CASE TEXT",
    "<extra_id_0>",
    "a <extra_id_0> b",
    "a<extra_id_0>b",
    "a  <extra_id_0>   b <extra_id_1>",
    "<extra_id_0> cat <extra_id_1> dog <extra_id_15>",
    "a <extra_id_99> b",
    "<extra_id_100> is no sentinel",
    "</s>",
    "a </s> b",
    "<pad> and <unk>",
    "the the the the the the the the the the the the the the the the the the the the",
    "x" * 40,
    "Answer in EN: where is the dog? <extra_id_0>",
    "control \x01 \x7f chars",
    "combining n\u0303 \u1e9b\u0323",
]

SIGLIP_STRINGS = [
    "",
    "a cat",
    "A Photo of a Cat.",
    "a photo of two birds!",
    "the  old\nman, near; the (river)",
    "it's a dog's house",
    "ÜBER Straße CAFÉ",
    "İstanbul ΑΣ",
    "snake_case and-dashes",
    "🐱 unknown",
    "42.50 %",
    "“curly” — dash…",
    "a very long text that will not fit into twelve tokens because it goes on and on",
    "a </s> b",
]


def t5_tokenizer(folder):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)


def write_t5_folder(folder, blob, extra_ids):
    """spiece.model and the tokenizer_config.json that names the class, as on the hub."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "spiece.model").write_bytes(blob)
    common.write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "T5Tokenizer",
            "eos_token": "</s>",
            "pad_token": "<pad>",
            "unk_token": "<unk>",
            "extra_ids": extra_ids,
            "model_max_length": 512,
        },
    )


def write_siglip_folder(folder, blob, length):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "spiece.model").write_bytes(blob)
    common.write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "SiglipTokenizer",
            "do_lower_case": True,
            "eos_token": "</s>",
            "pad_token": "</s>",
            "unk_token": "<unk>",
            "model_max_length": length,
        },
    )


def golden_t5(name, blob, extra_ids):
    import sentencepiece as spm

    folder = TOKENIZERS / name
    write_t5_folder(folder, blob, extra_ids)
    sp = spm.SentencePieceProcessor(model_proto=blob)
    hf = t5_tokenizer(folder)
    cases = []
    for text in STRINGS:
        ids = hf(text).input_ids
        raw = sp.encode(text)
        case = {
            "text": text,
            "hf_ids": ids,  # with </s>
            "spm_ids": raw,  # without </s>, sentinels are ordinary text here
            "hf_decoded": hf.decode(ids, skip_special_tokens=True),
            "spm_decoded": sp.decode(raw),
            "agree": ids == raw + [1],
        }
        cases.append(case)
    info = common.header("tokenizer/t5") | {
        "pieces": sp.get_piece_size(),
        "extra_ids": extra_ids,
        "hf_vocabulary": len(hf),
        "hf_class": type(hf).__name__,
        "hf_extra_id_0": hf.convert_tokens_to_ids("<extra_id_0>"),
        "note": "transformers 5 has no 'legacy' switch any more; hf_ids are what T5Tokenizer gives by default",
        "cases": cases,
    }
    common.write_json(folder / "golden.json", info)
    odd = [c["text"] for c in cases if not c["agree"]]
    common.log(f"tokenizer {name}: {sp.get_piece_size()} pieces, class {type(hf).__name__}, "
               f"{len(odd)} of {len(cases)} differ between transformers and sentencepiece: {odd}")


def golden_siglip(name, blob, length):
    import sentencepiece as spm
    from transformers import AutoTokenizer

    folder = TOKENIZERS / name
    write_siglip_folder(folder, blob, length)
    sp = spm.SentencePieceProcessor(model_proto=blob)
    hf = AutoTokenizer.from_pretrained(folder)
    cases = []
    for text in SIGLIP_STRINGS:
        canonical = hf.canonicalize_text(text)
        cases.append(
            {
                "text": text,
                "canonical": canonical,
                "hf_ids": hf(text, padding="max_length", truncation=True, max_length=length).input_ids,
                "hf_ids_unpadded": hf(text).input_ids,
                "spm_ids_canonical": sp.encode(canonical),
            }
        )
    info = common.header("tokenizer/siglip") | {
        "pieces": sp.get_piece_size(),
        "length": length,
        "hf_class": type(hf).__name__,
        "cases": cases,
    }
    common.write_json(folder / "golden.json", info)
    odd = [c["text"] for c in cases if c["hf_ids_unpadded"] != c["spm_ids_canonical"] + [1]]
    common.log(f"tokenizer {name}: {sp.get_piece_size()} pieces, {len(odd)} of {len(cases)} differ "
               f"from sentencepiece of the canonical text: {odd}")


def load(name):
    return (TOKENIZERS / name / "spiece.model").read_bytes()


def main():
    common.setup_torch()
    golden_t5("t5", train("t5", 230), 100)
    golden_t5("mt5", with_sentinels(train("mt5", 160, rule="identity"), 16), 0)
    golden_t5("small", train("small", 140, rule="identity"), 100)
    golden_siglip("siglip", train("siglip", 120, rule="identity", lower=True), 12)


if __name__ == "__main__":
    main()
