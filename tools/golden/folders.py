"""Model folders under tests/data/models: what is written into them beside weights that a model saves itself."""

import json
import shutil

import common

torch = common.setup_torch()

MODELS = common.DATA / "models"
IMAGES = common.DATA / "images"


def reset(folder):
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)


def copy_folder(source, target):
    reset(target)
    for f in source.iterdir():
        if f.name not in ("golden.json", "golden.safetensors"):
            shutil.copy(f, target / f.name)


def reload(model_class, folder, dtype=None):
    model = model_class.from_pretrained(folder, attn_implementation="eager", dtype=dtype or torch.float32)
    return model.eval()


def rewrite_config(folder, change):
    path = folder / "config.json"
    config = json.loads(path.read_text())
    change(config)
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def write_preprocessor(folder, size_px):
    common.write_json(
        folder / "preprocessor_config.json",
        {
            "do_normalize": True,
            "do_rescale": True,
            "do_resize": True,
            "image_mean": [0.5, 0.5, 0.5],
            "image_processor_type": "SiglipImageProcessor",
            "image_std": [0.5, 0.5, 0.5],
            "processor_class": "SiglipProcessor",
            "resample": 3,
            "rescale_factor": 0.00392156862745098,
            "size": {"height": size_px, "width": size_px},
        },
    )


def write_shards(folder, state, count):
    """Contiguous runs of the sorted names, and the index that transformers writes."""
    for old in folder.glob("model*.safetensors"):
        old.unlink()
    names = sorted(state)
    step = -(-len(names) // count)
    weight_map = {}
    for i in range(count):
        file = f"model-{i + 1:05d}-of-{count:05d}.safetensors"
        run = names[i * step : (i + 1) * step]
        common.write_tensors(folder / file, {n: state[n] for n in run}, {"format": "pt"})
        weight_map |= {n: file for n in run}
    total = sum(v.numel() * v.element_size() for v in state.values())
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")


def size(folder):
    return f"{sum(f.stat().st_size for f in folder.rglob('*') if f.is_file()) // 1024} KB"


def readable():
    """The safetensors library writes files that only their owner can read."""
    for f in common.DATA.rglob("*.safetensors"):
        f.chmod(0o644)
