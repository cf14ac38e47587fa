"""Shared helpers of the golden generators: paths, seeds, writing of tensors and JSON."""

import json
import os
import platform
import sys
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("USE_TORCH", "1")

import numpy as np  # noqa: E402

FORMAT = 1  # format of golden.json; raise it with every change that a reader must notice
ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "tests" / "data"
HOW = "python tools/golden/make_all.py"


def versions():
    """Versions of everything that shapes a golden, without anything about the machine."""
    import PIL
    import safetensors
    import scipy
    import sentencepiece
    import tokenizers
    import torch
    import transformers

    return {
        "python": platform.python_version(),
        "torch": torch.__version__.split("+")[0],
        "transformers": transformers.__version__,
        "tokenizers": tokenizers.__version__,
        "sentencepiece": sentencepiece.__version__,
        "safetensors": safetensors.__version__,
        "numpy": np.__version__,
        "scipy": scipy.__version__,
        "pillow": PIL.__version__,
    }


def header(kind):
    return {"format": FORMAT, "kind": kind, "regenerate": HOW, "versions": versions()}


def write_json(path, value):
    """Indented JSON, but flat lists of numbers or strings stay on one line."""

    def dump(v, indent):
        pad = " " * (indent + 1)
        if isinstance(v, dict) and v:
            rows = [f"{pad}{json.dumps(str(k), ensure_ascii=False)}: {dump(x, indent + 1)}" for k, x in v.items()]
            return "{\n" + ",\n".join(rows) + "\n" + " " * indent + "}"
        if isinstance(v, list) and v and any(isinstance(x, (dict, list)) for x in v):
            rows = [pad + dump(x, indent + 1) for x in v]
            return "[\n" + ",\n".join(rows) + "\n" + " " * indent + "]"
        return json.dumps(v, ensure_ascii=False)

    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(dump(value, 0) + "\n", encoding="utf-8")


def write_tensors(path, tensors, metadata=None):
    """Writes numpy or torch tensors; torch bf16 stays bf16."""
    import torch
    from safetensors.torch import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    out = {}
    for name, t in tensors.items():
        if not torch.is_tensor(t):
            t = torch.from_numpy(np.array(t))
        out[name] = t.detach().clone().contiguous()
    save_file(out, str(path), metadata=metadata)


def setup_torch():
    import torch
    import transformers

    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    torch.set_grad_enabled(False)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    return torch


def log(*parts):
    print(*parts, file=sys.stderr, flush=True)
