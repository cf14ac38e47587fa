"""What the runners of all engines share: the shapes, the clock, and how one says that it cannot."""
import json
import os
import pathlib
import time

CONFIGS = pathlib.Path(__file__).resolve().parents[2] / "models" / "configs"
VISION = {"so400m": "siglip-so400m-14-224", "vit-g": "siglip-g-14-224"}
LANGUAGE = "ul2-xl"
PALIGEMMA = "paligemma-3b-224"
PROMPT_TOKENS = 272
THREADS = int(os.environ.get("PEER_THREADS", "2"))


class Skip(Exception):
    pass


def need(module):
    try:
        return __import__(module)
    except ImportError:
        raise Skip(f"no {module} in this Python") from None


def cache_folder():
    """For models as other engines want them."""
    return os.environ.get("PEER_CACHE", "/tmp/pali-peers")


def timed(work, runs):
    """Milliseconds of each run after a first one that does not count. Work of less than 5 ms is
    repeated within a run."""
    work()
    start = time.perf_counter()
    work()
    once = time.perf_counter() - start
    repeats = max(1, min(1000, int(0.005 / once)))
    times = [once * 1e3] if repeats == 1 else []
    while len(times) < runs:
        start = time.perf_counter()
        for _ in range(repeats):
            work()
        times.append((time.perf_counter() - start) / repeats * 1e3)
    return times


def config_of(name):
    return json.loads((CONFIGS / f"{name}.json").read_text())
