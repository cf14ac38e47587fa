"""Small inputs for the libFuzzer targets, cut out of tests/data: make_seeds.py FOLDER."""
import io
import json
import pathlib
import struct
import sys
import zipfile

MODELS = pathlib.Path(__file__).resolve().parents[1] / "data" / "models"


def npy(descr="<f4", shape="(2, 3)", data=bytes(24), version=1):
    header = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    size = struct.pack("<H" if version == 1 else "<I", len(header))
    return b"\x93NUMPY" + bytes([version, 0]) + size + header.encode() + data


def archive(members, method, zip64=False):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as file:
        for name, content in members.items():
            with file.open(name, "w", force_zip64=zip64) as member:
                member.write(content)
    return out.getvalue()


def shapes(path):
    """A line a tensor of an .npz: its name and its sizes."""
    lines = []
    with zipfile.ZipFile(path) as file:
        for name in file.namelist():
            head = file.read(name)[:300].decode("latin-1")
            sizes = head[head.index("(") + 1 : head.index(")")].replace(",", " ").split()
            lines.append(" ".join([name.removesuffix(".npy"), *sizes]))
    return "\n".join(lines).encode()


def main():
    root = pathlib.Path(sys.argv[1])

    def write(target, name, content):
        (root / target).mkdir(parents=True, exist_ok=True)
        (root / target / name).write_bytes(content)

    arrays = {"a.npy": npy(), "img/b.npy": npy("|V2", "(3,)", bytes(6)), "t.npy": npy("<f4", "()", bytes(4), 2)}
    for name, content in arrays.items():
        write("npy", name.replace("/", "_"), content)
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        for zip64 in (False, True):
            content = archive(arrays, method, zip64)
            write("npz", f"{method}-{zip64}", content)
            write("zip", f"{method}-{zip64}", content)
    with zipfile.ZipFile(MODELS / "ul2_bin" / "pytorch_model.bin") as file:
        pickled = next(file.read(n) for n in file.namelist() if n.endswith("/data.pkl"))
    write("pickle", "ul2", pickled)
    # The first tensor alone, as torch.save writes one: small enough to be looked at.
    one = pickled[: pickled.index(b"tR") + 2]
    write("pickle", "one", one + b"u.")
    write("torch_file", "one", archive({"m/data.pkl": one + b"u.", "m/byteorder": b"little", "m/data/0": bytes(4096)},
                                       zipfile.ZIP_STORED))
    header = {"__metadata__": {"format": "pt"}, "a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
              "b": {"dtype": "BF16", "shape": [], "data_offsets": [24, 26]}}
    text = json.dumps(header).encode()
    write("safetensors", "two", struct.pack("<Q", len(text)) + text + bytes(26))
    for path in sorted(MODELS.glob("*/*.json")):
        if path.name in ("config.json", "preprocessor_config.json", "generation_config.json"):
            write("config", f"{path.parent.name}-{path.name}", path.read_bytes())
    for path in sorted(MODELS.glob("*_npz/*.npz")):
        write("big_vision", path.name, shapes(path))


if __name__ == "__main__":
    main()
