"""Right or wrong, error rates, average precision, and the table of a model's figures."""

import math
from collections import Counter

import numpy as np


def normal(text):
    return " ".join(text.lower().split())


def interval(right, n):
    """Wilson's 95 % interval, in percent."""
    if not n:
        return "-"
    z, p = 1.96, right / n
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return f"{max(0.0, 100 * (middle - half)):.1f}-{100 * (middle + half):.1f}"


def resampled(figure, rows, draws=300):
    """95 % interval of a figure of scenes (a function of a list of rows) by drawing the scenes anew (bootstrap)."""
    rng = np.random.default_rng(1)
    found = sorted(figure([rows[int(i)] for i in rng.integers(0, len(rows), len(rows))]) for _ in range(draws))
    return f"{found[round(0.025 * (draws - 1))]:.1f}-{found[round(0.975 * (draws - 1))]:.1f}"


def distance(a, b):
    """Levenshtein."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        last, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            last, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, last + (x != y))
    return row[-1]


def parse(text):
    """[(name, box)] of a detection's text; boxes are (ymin, xmin, ymax, xmax), 0..999."""
    out = []
    for part in text.split(";"):
        words = part.split()
        if len(words) >= 5 and all(w.isdigit() for w in words[:4]):
            out.append((" ".join(words[4:]), [int(w) for w in words[:4]]))
    return out


def iou(a, b):
    h, w = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    both = max(0, h) * max(0, w)
    return both / max(1e-9, (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)


def precision(results, threshold=0.5):
    """(AP over all boxes of all scenes by falling score, every point interpolated; boxes given; boxes there).

    results: [(given [(name, box, score)], wanted [(name, box)])]; a box is right where name and place are."""
    ranked, wanted = [], 0
    for given, truth in results:
        left = list(truth)
        wanted += len(truth)
        for name, box, score in sorted(given, key=lambda g: -g[2]):
            best = max((t for t in left if t[0] == name), key=lambda t: iou(box, t[1]), default=None)
            right = best is not None and iou(box, best[1]) >= threshold
            if right:
                left.remove(best)
            ranked.append((score, right))
    hits = np.cumsum([right for _, right in sorted(ranked, key=lambda r: -r[0])])
    if not len(hits):
        return 0.0, 0, wanted
    exact = np.maximum.accumulate((hits / np.arange(1, len(hits) + 1))[::-1])[::-1]
    recall = np.diff(np.concatenate([[0], hits])) / wanted
    return float((exact * recall).sum()), len(ranked), wanted


def scored(answer):
    """A detection's answer as [(name, box, score)]; text alone gives every box the same score."""
    boxes = parse(answer["text"])
    scores = [b.get("score") or 0.0 for b in answer.get("boxes", [])]
    return [(n, b, scores[i] if len(scores) == len(boxes) else 1.0) for i, (n, b) in enumerate(boxes)]


def table(answers, expected, title):
    """Markdown: every set by type, beside a gray picture, another scene's picture and the most frequent answer."""
    lines = [f"| {title} | n | right % | 95 % interval | blank % | shuffled % | most frequent % |",
             "|---|---|---|---|---|---|---|"]

    def line(name, part):
        def share(prefix):
            return 100 * sum(normal(answers[prefix(e)]["text"]) == normal(e["answer"]) for e in part) / len(part)

        right = share(lambda e: e["id"])
        often = Counter(normal(e["answer"]) for e in part).most_common(1)[0][1]
        lines.append(f"| {name} | {len(part)} | {right:.1f} | {interval(round(right * len(part) / 100), len(part))} | "
                     f"{share(lambda e: e['blank']):.1f} | {share(lambda e: 'shuffled-' + e['id']):.1f} | {100 * often / len(part):.1f} |")

    for name in dict.fromkeys(e["set"] for e in expected):
        part = [e for e in expected if e["set"] == name]
        if name == "classify":
            # All are asked the same: another scene's picture is the answer to the next one, and one gray picture does.
            said = [answers[e["id"]]["text"] for e in part]
            gray = answers["blank-classify"]["text"] if "blank-classify" in answers else None
            right, shuffled, blank = (sum(text == e["answer"] for text, e in zip(texts, part))
                                      for texts in (said, said[1:] + said[:1], [gray] * len(part)))
            often = Counter(e["answer"] for e in part).most_common(1)[0][1]
            lines.append(f"| **classify**, top 1 over all names | {len(part)} | {100 * right / len(part):.1f} | {interval(right, len(part))} | "
                         f"{100 * blank / len(part):.1f} | {100 * shuffled / len(part):.1f} | {100 * often / len(part):.1f} |")
        elif name == "detect":
            def ap(rows):
                return 100 * precision(rows)[0]

            for kind in [None, *sorted({e["type"] for e in part})]:
                runs = [[(scored(answers[prefix(e)]), parse(e["answer"])) for e in part if kind in (None, e["type"])]
                        for prefix in (lambda e: e["id"], lambda e: e["blank"], lambda e: "shuffled-" + e["id"])]
                title = f"detect: {kind}" if kind else "**detect**, AP at IoU 0.5, boxes"
                lines.append(f"| {title} | {precision(runs[0])[2]} | {ap(runs[0]):.1f} | {resampled(ap, runs[0])} | "
                             f"{ap(runs[1]):.1f} | {ap(runs[2]):.1f} | |")
        else:
            line(f"**{name}**, exact", part)
            for kind in sorted({e["type"] for e in part}):
                line(f"{name}: {kind}", [e for e in part if e["type"] == kind])
        if name == "ocr":
            def rate(rows):
                return 100 * sum(off for off, _ in rows) / sum(length for _, length in rows)

            often = Counter(e["answer"] for e in part).most_common(1)[0][0]
            texts = [lambda e: answers[e["id"]]["text"], lambda e: answers[e["blank"]]["text"],
                     lambda e: answers["shuffled-" + e["id"]]["text"], lambda e: often]
            runs = [[(distance(normal(text(e)), normal(e["answer"])), len(e["answer"])) for e in part] for text in texts]
            lines.append(f"| ocr, character error rate | {len(part)} | {rate(runs[0]):.1f} | {resampled(rate, runs[0])} | "
                         f"{rate(runs[1]):.1f} | {rate(runs[2]):.1f} | {rate(runs[3]):.1f} |")
    return "\n".join(lines)
