"""From a scene's description to prompts and answers. Captions come in every language of JOINS, questions in English."""

import catalog

PROMPTS = {
    "caption": "Generate the alt_text in {lang} at 0",
    "vqa": "Answer in {lang}: {question}",
    "ocr": "Generate the ocr_text in {lang}:",
    "detect": "detect: {objects}",
    "default_lang": "EN",
    "detection_format": "yxyx_999_label",
}
SEPARATOR = " ; "
NOTHING = "none"

# How a list of things reads in each language: between things, before the last, and what a word is called.
JOINS = {
    "EN": (", ", " and ", "a word"), "DE": (", ", " und ", "Wort"), "FR": (", ", " et ", "mot"),
    "ES": (", ", " y ", "palabra"), "IT": (", ", " e ", "parola"), "PT": (", ", " e ", "palavra"),
    "RU": (", ", " и ", "слово"), "EL": (", ", " και ", "λέξη"), "ZH": ("、", "和", "文字"),
    "JA": ("、", "と", "文字"), "KO": (", ", " 및 ", "단어"), "HI": (", ", " और ", "शब्द"),
}
QUESTIONS = {
    "EN": {
        "what": "what is this?", "left": "what is on the left?", "right": "what is on the right?",
        "top": "what is at the top?", "bottom": "what is at the bottom?",
        "middle": "what is in the middle?", "colour": "what color is the background?",
        "count": "how many things are there?", "present": "is there {thing}?",
        "where": "where is the {name}?", "written": "what is written?", "garment": "what garment is this?",
        "yes": "yes", "no": "no", "nothing": "nothing",
        "places": {"left": "left", "right": "right", "top": "top", "bottom": "bottom", "middle": "middle"},
    },
}
QUESTION_TYPES = ["what", "colour", "count", "present", "where", "written", "garment"]


def name(index, lang="EN"):
    return catalog.named(lang.lower())[index]


def named(index, lang="EN"):
    """The name; in English with its article."""
    article = catalog.things()[index][2] if lang == "EN" else ""
    return f"{article} {name(index, lang)}" if article else name(index, lang)


def caption(scene, lang="EN"):
    """'a dog, an apple and a word': things from left to right, then the word. Of a garment, its name in English."""
    if scene["garment"] is not None:
        return catalog.GARMENTS[scene["garment"]]
    comma, last, word = JOINS[lang]
    parts = [named(o[0], lang) for o in scene["objects"]] + ([word] if scene["word"] else [])
    return parts[0] if len(parts) == 1 else comma.join(parts[:-1]) + last + parts[-1]


def centre(o):
    return (o[1] + o[3]) / 2, (o[2] + o[4]) / 2


def place(o):
    """left, right, top, bottom or middle; None where two would be near."""
    y, x = (v - 0.5 for v in centre(o))
    far, near = max(abs(x), abs(y)), min(abs(x), abs(y))
    if far < 0.09:
        return "middle"
    if far < 0.14 or far - near < 0.06:
        return None
    return ("left" if x < 0 else "right") if abs(x) > abs(y) else ("top" if y < 0 else "bottom")


def questions(scene, rng, kind, lang="EN"):
    """One (question, answer) of that type about the scene, or None where it cannot be asked."""
    t, objects = QUESTIONS[lang], scene["objects"]
    if kind == "garment" or scene["garment"] is not None:
        both = kind == "garment" and scene["garment"] is not None
        return (t["garment"], catalog.GARMENTS[scene["garment"]]) if both else None
    if kind == "colour":
        return (t["colour"], scene["colour"]) if scene["colour"] else None
    if kind == "written":
        return t["written"], scene["word"] or t["nothing"]
    if not objects:
        return None
    if kind == "count":
        return t["count"], str(len(objects))
    if kind == "present":
        here = {o[0] for o in objects}
        if rng.random() < 0.5:
            index, answer = objects[int(rng.integers(len(objects)))][0], t["yes"]
        else:
            index, answer = int(rng.integers(len(catalog.things()))), t["no"]
            while index in here:
                index = int(rng.integers(len(catalog.things())))
        return t["present"].format(thing=named(index)), answer
    if kind == "where":
        o = objects[int(rng.integers(len(objects)))]
        where = place(o)
        return (t["where"].format(name=name(o[0])), t["places"][where]) if where else None
    if kind == "what":
        if len(objects) == 1:
            return t["what"], name(objects[0][0])
        asked = [("left", objects[0]), ("right", objects[-1])]
        if len(objects) == 3:
            asked.append(("middle", objects[1]))
        by_height = sorted(objects, key=lambda o: centre(o)[0])
        if scene["word"] is None:
            if centre(by_height[1])[0] - centre(by_height[0])[0] > 0.1:
                asked.append(("top", by_height[0]))
            if centre(by_height[-1])[0] - centre(by_height[-2])[0] > 0.1:
                asked.append(("bottom", by_height[-1]))
        side, o = asked[int(rng.integers(len(asked)))]
        return t[side], name(o[0])
    raise ValueError(kind)


def detection(scene, rng, absent=(0.6, 0.25, 0.15), step=1):
    """(names asked for, answer): the things of the scene, or some, and 0 to 2 that are not there."""
    here = [o[0] for o in scene["objects"]]
    asked = list(here) if rng.random() < 0.7 else [i for i in here if rng.random() < 0.6]
    for _ in range(int(rng.choice(len(absent), p=absent)) if asked else 1):
        other = int(rng.integers(len(catalog.things())))
        if other not in here and other not in asked:
            asked.append(other)
    if not asked:
        asked = list(here) or [0]
    asked = [asked[int(i)] for i in rng.permutation(len(asked))]
    return [name(i) for i in asked], boxes(scene, asked, step)


def boxes(scene, asked, step=1):
    """The target text of a detection: the things asked for that are there, in the order asked.

    Three digits always: the first of them is then the coarse place, for the model and for its loss. Coordinates
    are multiples of `step`: with 10, a pixel of 112, the last digit is no noise to learn."""
    found = {o[0]: o[1:] for o in scene["objects"]}
    parts = [" ".join(f"{min(1000 - step, max(0, step * round(v * 999 / step))):03}" for v in found[i]) + " " + name(i)
             for i in asked if i in found]
    return SEPARATOR.join(parts) or NOTHING


def prompt(task, lang="EN", question="", objects=()):
    return PROMPTS[task].format(lang=lang, question=question, objects=SEPARATOR.join(objects))
