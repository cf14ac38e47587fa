"""Zero-shot retrieval between pictures of one thing and the names of all things, a language at a time.

Through `pali embed` of the C++ engine, so that what is measured is what ships. A picture asks for its name among all
names of the language; a name, of those that some picture shows, asks for a picture of its thing among all pictures.
"""

import subprocess
import tempfile
from pathlib import Path

import numpy as np

import prompts
from scores import interval


def embed(command, model_folder, options, what):
    """Vectors of length 1, [n, d] f32, of picture files or, after "--text", of texts."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "vectors.npy"
        subprocess.run([str(command), "embed", "-m", str(model_folder), "-o", str(out), *options, *what], check=True)
        vectors = np.load(out)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def found(scores, right, k):
    """For each row of scores [n, m] whether one of its k best columns is right (bool [n, m]); of equals the first is better."""
    best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(right, best, 1).any(1)


def languages(command, model_folder, options, folder, expected):
    """Markdown: a line a language with names found of pictures and pictures found of names, and their mean.

    expected: the lines of the set "classify", each of a picture of one thing and its English name. Two things of one
    name in a language are both right for it."""
    english = [prompts.named(i) for i in range(len(prompts.catalog.things()))]
    shown = np.array([english.index(e["answer"]) for e in expected])
    pictures = embed(command, model_folder, options, [str(folder / e["image"]) for e in expected])
    lines = [f"| language | name of a picture ({len(shown)}), top 1 % | top 5 % | picture of a name ({len(set(shown))}), recall@1 % | recall@5 % |",
             "|---|---|---|---|---|"]
    shares = []
    for lang in prompts.JOINS:
        names = [prompts.named(i, lang) for i in range(len(english))]
        scores = pictures @ embed(command, model_folder, options, ["--text", *names]).T
        right = np.array([[names[thing] == name for name in names] for thing in shown])
        asked = np.unique(shown)
        hits = [found(scores, right, 1), found(scores, right, 5),
                found(scores.T[asked], right.T[asked], 1), found(scores.T[asked], right.T[asked], 5)]
        shares.append([100 * h.mean() for h in hits])
        cells = [f"{100 * h.mean():.1f} ({interval(int(h.sum()), len(h))})" for h in hits]
        lines.append(f"| {lang} | " + " | ".join(cells) + " |")
    means = [f"**{m:.1f}**" for m in np.mean(shares, axis=0)]
    return "\n".join([*lines, "| **mean** | " + " | ".join(means) + " |"])
