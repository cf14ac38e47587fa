"""UL2's mixture of denoisers on the sentences of the tasks: short spans, long spans, and going on from a start.

(Tay et al., "UL2: Unifying Language Learning Paradigms", section 3.1.2.)
"""

import catalog
import prompts

KINDS = [(0.15, 3), (0.5, 8), (None, None)]  # (share hidden, mean length of a span); None: everything after a point


def sentence(scene, rng):
    """A line of text: a thing in several languages, a caption in two, or a question with its answer."""
    languages, kind = list(prompts.JOINS), rng.random()
    two = [languages[int(i)] for i in rng.choice(len(languages), 2, replace=False)]
    if kind < 0.5:
        index = int(rng.integers(len(catalog.things())))
        some = [languages[int(i)] for i in rng.choice(len(languages), 5, replace=False)]
        return " = ".join(f"{lang} {prompts.name(index, lang)}" for lang in some)
    if kind < 0.8 or not scene["objects"]:
        return " = ".join(f"{lang} {prompts.caption(scene, lang)}" for lang in two)
    asked = prompts.questions(scene, rng, prompts.QUESTION_TYPES[int(rng.integers(6))])
    return " ".join(asked) if asked else prompts.caption(scene, two[0])


def corrupt(ids, sentinels, rng):
    """(input, target) of one line of ids that ends with </s>."""
    body, end = list(ids[:-1]), ids[-1]
    share, length = KINDS[int(rng.integers(len(KINDS)))]
    if share is None or len(body) < 4:
        cut = int(rng.integers(1, max(2, len(body))))
        return [*body[:cut], sentinels[0], end], [sentinels[0], *body[cut:], end]
    spans = max(1, min(len(sentinels), round(len(body) * share / length)))
    hidden = max(spans, round(len(body) * share))
    starts = sorted(int(i) for i in rng.choice(len(body), spans, replace=False))
    source, target, at = [], [], 0
    for n, start in enumerate(starts):
        if start < at:
            continue
        stop = min(len(body), start + max(1, hidden // spans))
        source += [*body[at:start], sentinels[n]]
        target += [sentinels[n], *body[start:stop]]
        at = stop
    return [*source, *body[at:], end], [*target, end]
