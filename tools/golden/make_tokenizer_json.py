"""Tokenizers of the construction of Gemma's and T5's, as Hugging Face's tokenizer.json beside the SentencePiece
model it was made from, and lines of text in 32 scripts with the ids that both libraries give
(tests/data/tokenizer_json).

gemma    BPE with byte fallback: runs of spaces and line breaks, tags, <loc> and <seg> as added tokens
siglip2  the same with Siglip2Tokenizer's Lowercase
paired   BPE trained by Hugging Face's own trainer: its merges are no longer all splits of every piece
t5       unigram, the rows of nmt_nfkc that the lines need, sentinels behind the pieces
mt5      the same, sentinels inside the model

`--lines N --out FOLDER` writes larger tokenizers and N lines each: PALI_TOKENIZER_LINES=FOLDER text_test.
"""

import argparse
import io
import json
import random
import unicodedata
from pathlib import Path

import common
from make_tokenizers import with_sentinels

FOLDER = common.DATA / "tokenizer_json"

SCRIPTS = {
    "latin": (0x41, 0x24F), "greek": (0x370, 0x3FF), "cyrillic": (0x400, 0x4FF), "armenian": (0x531, 0x587),
    "hebrew": (0x5B0, 0x5EA), "arabic": (0x620, 0x6D3), "syriac": (0x710, 0x74A), "thaana": (0x780, 0x7B0),
    "devanagari": (0x901, 0x94D), "bengali": (0x981, 0x9CD), "gurmukhi": (0xA02, 0xA4D), "gujarati": (0xA81, 0xACD),
    "oriya": (0xB01, 0xB4D), "tamil": (0xB82, 0xBCD), "telugu": (0xC01, 0xC4D), "kannada": (0xC82, 0xCCD),
    "malayalam": (0xD02, 0xD4D), "sinhala": (0xD82, 0xDDF), "thai": (0xE01, 0xE4E), "lao": (0xE81, 0xECD),
    "tibetan": (0xF40, 0xF84), "myanmar": (0x1000, 0x104F), "georgian": (0x10A0, 0x10FF), "hangul": (0xAC00, 0xAFFF),
    "ethiopic": (0x1200, 0x135A), "cherokee": (0x13A0, 0x13F4), "khmer": (0x1780, 0x17D2), "mongolian": (0x1820, 0x1877),
    "hiragana": (0x3041, 0x3096), "katakana": (0x30A1, 0x30FA), "han": (0x4E00, 0x4FFF), "bopomofo": (0x3105, 0x312F),
}
EMOJI = ["🐱", "👍🏽", "👩‍👩‍👧‍👦", "🇨🇭", "❤️", "🏴󠁧󠁢󠁳󠁣󠁴󠁿", "🤷🏾‍♀️", "☃", "1️⃣", "🪿"]
CONTROLS = ["\x01", "\x07", "\x0b", "\x0c", "\x1b[0m", "\x7f", "\u200b", "\u200d", "\u2028", "\ufeff", "\u202e", "\xad"]
SPACES = [" ", "  ", "    ", "\t", "\n", "\n\n", "\r\n", "\u00a0", "\u3000", " " * 17]
WIDE = ["ﬁne", "ﬂow", "①②", "½", "™", "ｆｕｌｌ", "㎏", "Å", "…", "e\u0301", "ñ", "n\u0303", "가", "각", "ẛ̣"]
TAGS = ["<loc0123>", "<loc0000>", "<seg007>", "<loc12>", "<loc", "<seg", "</s>", "<eos>", "<bos>", "<pad>", "<unk>", "<h1>",
        "</h1>", "<extra_id_0>", "<extra_id_3>", "<extra_id_99>", "<unused1>", "<0x0A>", "<0xE2>", "▁", "▁▁", "<mask>"]


def letters(script):
    low, high = SCRIPTS[script]
    return [chr(c) for c in range(low, high + 1) if unicodedata.category(chr(c))[0] in "LM"]


class Corpus:
    """Made-up words: syllables of a script, some words far more frequent than others."""

    def __init__(self, seed, words, alphabet_size):
        self.rng = random.Random(seed)
        self.words = {}
        for script in SCRIPTS:
            alphabet = letters(script)
            alphabet = self.rng.sample(alphabet, min(alphabet_size, len(alphabet)))
            syllables = ["".join(self.rng.choices(alphabet, k=self.rng.randint(1, 3))) for _ in range(40)]
            self.words[script] = ["".join(self.rng.choices(syllables, k=self.rng.randint(1, 4))) for _ in range(words)]

    def word(self, script):
        words = self.words[script]
        return words[min(int(self.rng.paretovariate(0.6)) - 1, len(words) - 1)]

    def plain(self):
        script = self.rng.choice(list(SCRIPTS))
        space = "" if script in ("thai", "han", "hiragana", "katakana", "khmer") else " "
        words = [self.word(script) for _ in range(self.rng.randint(3, 10))]
        if script == "latin" and self.rng.random() < 0.5:
            words[0] = words[0].capitalize()
        return space.join(words)

    def line(self):
        """What a tokenizer meets, and what it should not."""
        rng, parts = self.rng, []
        for _ in range(rng.randint(1, 6)):
            kind = rng.random()
            if kind < 0.50:
                parts.append(self.plain())
            elif kind < 0.58:
                parts.append(rng.choice(EMOJI))
            elif kind < 0.65:
                parts.append(rng.choice(CONTROLS))
            elif kind < 0.75:
                parts.append(rng.choice(TAGS))
            elif kind < 0.80:
                parts.append(rng.choice(WIDE))
            elif kind < 0.85:
                parts.append(str(rng.randint(0, 10 ** rng.randint(1, 9))) + rng.choice(["", ".50", "%", ",", " kg"]))
            elif kind < 0.90:
                parts.append("".join(chr(c) for c in rng.choices(range(0x21, 0x7F), k=rng.randint(1, 8))))
            elif kind < 0.94:
                parts.append(rng.choice("abxy=-▁.") * rng.randint(2, 20))
            else:
                parts.append("".join(chr(rng.choice([rng.randint(0xA0, 0xD7FF), rng.randint(0xE000, 0x2FFFF)]))
                                     for _ in range(rng.randint(1, 5))))
            parts.append(rng.choice(SPACES) if rng.random() < 0.6 else rng.choice(["", " "]))
        return "".join(parts)


def train(corpus, lines, model_type, vocab_size, **options):
    import sentencepiece as spm

    model = io.BytesIO()
    spm.SentencePieceTrainer.train(
        sentence_iterator=iter([corpus.plain() for _ in range(lines)]), model_writer=model, model_type=model_type,
        vocab_size=vocab_size, num_threads=1, hard_vocab_limit=False, minloglevel=2, max_sentence_length=1 << 16, **options)
    return model.getvalue()


def gemma_symbols(tags):
    return (["<mask>"] + [f"<unused{i}>" for i in range(4)] + ["\n" * n for n in range(1, 8)] + ["▁" * n for n in range(2, 12)]
            + ["<h1>", "</h1>", "<table>"] + [f"<loc{i:04}>" for i in range(0, 1024, tags)] + ["<loc0123>"]
            + [f"<seg{i:03}>" for i in range(0, 128, max(1, tags // 8))] + ["<seg007>"])


def train_gemma(corpus, lines, vocab_size, tags):
    """Options as Gemma's model file has them: no normalisation, no dummy prefix, white space kept, bytes for the rest."""
    symbols = list(dict.fromkeys(gemma_symbols(tags)))
    return train(corpus, lines, "bpe", vocab_size, normalization_rule_name="identity", add_dummy_prefix=False,
                 remove_extra_whitespaces=False, byte_fallback=True, split_digits=True, character_coverage=0.98,
                 allow_whitespace_only_pieces=True, pad_id=0, eos_id=1, bos_id=2, unk_id=3, pad_piece="<pad>",
                 eos_piece="<eos>", bos_piece="<bos>", user_defined_symbols=symbols)


def train_t5(corpus, lines, vocab_size, rules):
    from sentencepiece import sentencepiece_model_pb2

    options = {"normalization_rule_tsv": str(rules)} if rules else {"normalization_rule_name": "nmt_nfkc"}
    blob = train(corpus, lines, "unigram", vocab_size, character_coverage=0.98, pad_id=0, eos_id=1, unk_id=2, bos_id=-1,
                 **options)
    model = sentencepiece_model_pb2.ModelProto.FromString(blob)
    model.normalizer_spec.ClearField("normalization_rule_tsv")  # the path it was read from; the rules are compiled in
    return model.SerializeToString()


def write_rules(path):
    """The rows of nmt_nfkc that the lines need: the whole table would take 300 KB of every file."""
    import sentencepiece as spm

    nmt = spm.SentencePieceNormalizer(rule_name="nmt_nfkc", add_dummy_prefix=False, remove_extra_whitespaces=False,
                                      escape_whitespaces=False)
    single = {chr(c) for c in range(1, 0x100)} | {chr(c) for c in range(0x1680, 0x3001) if chr(c).isspace()}
    rows = {}
    for text in single | set("".join(CONTROLS + SPACES + WIDE + EMOJI)) | set(WIDE):
        if nmt.normalize(text) != text:
            rows[text] = nmt.normalize(text)
    lines = [" ".join(f"{ord(c):X}" for c in a) + "\t" + " ".join(f"{ord(c):X}" for c in b) for a, b in sorted(rows.items())]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_json(folder, hf):
    """Hugging Face's file, without its line breaks."""
    text = json.loads(hf.to_str())
    (folder / "tokenizer.json").write_text(json.dumps(text, ensure_ascii=False, separators=(",", ":")), encoding="utf-8")


def from_hub_folder(folder, name, blob, config):
    """What transformers makes of a folder with a SentencePiece model: the Rust tokenizer behind it."""
    from transformers import AutoTokenizer

    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(blob)
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    hf = AutoTokenizer.from_pretrained(folder).backend_tokenizer
    (folder / "tokenizer_config.json").unlink()
    return hf


def write_lines(folder, hf, spm, lines, special=()):
    """text, Hugging Face's ids, and sentencepiece's ("spm") where they differ; "special" where the text holds a string
    that the one takes for a special token and the other for text."""
    differ = 0
    with open(folder / "lines.jsonl", "w", encoding="utf-8") as out:
        for start in range(0, len(lines), 1000):
            part = lines[start:start + 1000]
            for text, encoding in zip(part, hf.encode_batch(part, add_special_tokens=False)):
                row = {"text": text, "hf": encoding.ids}
                raw = encoding.ids if spm is None else spm.encode(text)
                if raw != encoding.ids and any(name in text for name in special):
                    row["special"] = True
                elif raw != encoding.ids:
                    row["spm"] = raw
                    differ += 1
                out.write(json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n")
    common.log(f"{folder.name}: {hf.get_vocab_size()} tokens, {len(lines)} lines, {differ} where the two libraries differ "
               "though no special token stands in the text")


def make(out, corpus, size, train_lines, lines, tags):
    import sentencepiece as spm
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    gemma_blob = train_gemma(corpus, train_lines, size, tags)
    processor = spm.SentencePieceProcessor(model_proto=gemma_blob)
    config = {"tokenizer_class": "GemmaTokenizer", "bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>",
              "unk_token": "<unk>", "mask_token": "<mask>", "add_bos_token": False}
    hf = from_hub_folder(out / "gemma", "tokenizer.model", gemma_blob, config)
    write_json(out / "gemma", hf)
    special = ["<bos>", "<eos>", "<pad>", "<unk>"]
    write_lines(out / "gemma", hf, processor, [corpus.line() for _ in range(lines)], special)

    (out / "siglip2").mkdir(parents=True, exist_ok=True)
    lower = Tokenizer.from_str(hf.to_str())
    lower.normalizer = normalizers.Sequence([normalizers.Lowercase(), lower.normalizer])
    write_json(out / "siglip2", lower)
    write_lines(out / "siglip2", lower, None, [corpus.line() for _ in range(lines)])

    (out / "paired").mkdir(parents=True, exist_ok=True)
    own = Tokenizer(models.BPE(byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    own.normalizer = normalizers.Replace(" ", "▁")
    own.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    own.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    own.train_from_iterator([corpus.plain() for _ in range(train_lines)], trainers.BpeTrainer(
        vocab_size=size, show_progress=False, special_tokens=special + [f"<0x{b:02X}>" for b in range(256)],
        limit_alphabet=size // 2))
    own.add_tokens([AddedToken("<loc0123>", normalized=True), AddedToken("<h1>", lstrip=True, normalized=False),
                    AddedToken("</h1>", rstrip=True, normalized=False), AddedToken("x y", normalized=True)])
    write_json(out / "paired", own)
    write_lines(out / "paired", own, None, [corpus.line() for _ in range(lines)])

    rules = out / "rules.tsv"
    write_rules(rules)
    for name in ("t5", "mt5"):
        blob = train_t5(corpus, train_lines, size, rules if tags > 1 else None)
        if name == "mt5":
            blob = with_sentinels(blob, 16)
        processor = spm.SentencePieceProcessor(model_proto=blob)
        config = {"tokenizer_class": "T5Tokenizer", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>",
                  "extra_ids": 0 if name == "mt5" else 100}
        hf = from_hub_folder(out / name, "spiece.model", blob, config)
        write_json(out / name, hf)
        write_lines(out / name, hf, processor, [corpus.line() for _ in range(lines)], ["</s>", "<pad>", "<unk>", "<extra_id"])
    rules.unlink()


def main(argv=None):
    parser = argparse.ArgumentParser()
    parser.add_argument("--lines", type=int, default=120)
    parser.add_argument("--out", type=Path, default=FOLDER)
    arguments = parser.parse_args(argv)
    common.setup_torch()
    large = arguments.lines > 1000
    make(arguments.out, Corpus(11, 3000 if large else 60, 300 if large else 8), 24000 if large else 1200, 200000 if large else 3000, arguments.lines,
         1 if large else 64)


if __name__ == "__main__":
    main()
