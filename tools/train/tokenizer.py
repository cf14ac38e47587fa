"""Trains the SentencePiece vocabulary on what the model reads and writes, and encodes texts."""

import argparse
import functools
import io
import string
from pathlib import Path

import numpy as np
import sentencepiece

import catalog
import prompts

PAD, EOS, UNK = 0, 1, 2


def corpus(seed=1, lines=40000):
    """Prompts, captions, questions, answers and words in the shares in which they occur."""
    rng = np.random.default_rng(seed)
    count, vocabulary = len(catalog.things()), catalog.words()
    # SentencePiece takes its seeds from substrings that occur in two different words or more: a word that
    # every prompt repeats would otherwise never become one piece.
    fixed = [prompts.prompt(task) for task in ("caption", "vqa", "ocr", "detect")]
    fixed += [v.format(name="", thing="") for t in prompts.QUESTIONS.values() for v in t.values() if isinstance(v, str)]
    fixed += [v for t in prompts.QUESTIONS.values() for v in t["places"].values()]
    fixed += catalog.GARMENTS + [part for joins in prompts.JOINS.values() for part in joins]
    fixed += [name for _, name, _ in catalog.things()] + list(catalog.COLOURS) + [prompts.NOTHING]
    for word in sorted({w for text in fixed for w in text.split()}):
        yield from (word + mark for mark in ("", ".", ",", ":", "?"))
    for i in range(lines):
        chosen = rng.choice(count, int(rng.integers(1, 4)), replace=False)
        objects = [[int(c), *[round(float(v), 4) for v in rng.random(4)]] for c in chosen]
        word = vocabulary[i % len(vocabulary)]
        scene = {"objects": objects, "word": word if i % 4 == 0 else None,
                 "colour": list(catalog.COLOURS)[i % len(catalog.COLOURS)],
                 "garment": i % 10 if i % 20 == 0 else None}
        lang = list(prompts.JOINS)[i // 2 % len(prompts.JOINS)] if i % 2 else "EN"
        yield prompts.prompt("caption", lang)
        yield prompts.caption(scene, lang)
        asked = prompts.questions(scene, rng, prompts.QUESTION_TYPES[i % len(prompts.QUESTION_TYPES)])
        if asked:
            yield prompts.prompt("vqa", question=asked[0])
            yield asked[1]
        names, answer = prompts.detection(scene, rng)
        yield prompts.prompt("detect", objects=names)
        if i % 4 == 0:
            yield answer
            yield prompts.prompt("ocr")
            yield (word, word.upper(), word.title())[i % 3]


def train(out, size):
    model = io.BytesIO()  # a path would stand in the file
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(list(corpus())), model_writer=model, model_type="unigram",
        vocab_size=size, pad_id=PAD, eos_id=EOS, unk_id=UNK, bos_id=-1, split_digits=True,
        character_coverage=1.0, normalization_rule_name="nmt_nfkc",
        required_chars="".join(c for c in string.printable if not c.isspace()),
        user_defined_symbols=[f"<extra_id_{i}>" for i in range(16)], num_threads=1,
        train_extremely_large_corpus=False, minloglevel=1)
    out.write_bytes(model.getvalue())


class Tokenizer:
    def __init__(self, path):
        self.sp = sentencepiece.SentencePieceProcessor(model_file=str(path))
        self.encode = functools.lru_cache(maxsize=100000)(lambda text: tuple(self.sp.encode(text)) + (EOS,))
        self.blank = self.sp.piece_to_id("\u2581")
        self.sentinels = [self.sp.piece_to_id(f"<extra_id_{i}>") for i in range(16)]
        self.digits = {self.sp.piece_to_id(c) for c in string.digits}

    def spell(self, text):
        """Letter by letter and in lower case: how the model writes what it reads in a picture."""
        return (self.blank, *[self.sp.piece_to_id(c) for c in text], EOS)

    def decode(self, ids):
        ids = [int(i) for i in ids]
        if EOS in ids:
            ids = ids[:ids.index(EOS)]
        return self.sp.decode([i for i in ids if i != PAD])

    def siglip(self, text, length=32):
        """SigLIP's form: lower case, no punctuation, sticky </s>, padded with 1."""
        text = "".join(c for c in text.lower() if c not in string.punctuation)
        ids = self.sp.encode(text)[:length - 1] + [EOS]
        return ids + [1] * (length - len(ids))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="spiece.model")
    parser.add_argument("--size", type=int, default=3072)
    args = parser.parse_args()
    train(args.out, args.size)
    t = Tokenizer(args.out)
    for text in [prompts.prompt("caption"), prompts.prompt("detect", objects=["dog", "hot dog"]), "a dog, an apple and a word",
                 "45 120 678 999 hot dog ; 0 1 2 3 cat", "Answer in EN: where is the jack-o-lantern?"]:
        print(len(t.encode(text)), t.sp.encode(text, out_type=str))


if __name__ == "__main__":
    main()
