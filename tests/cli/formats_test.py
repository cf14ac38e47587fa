"""Checkpoints as people download them: big_vision's .npz under their own names, tiny and at full size."""
import ast
import json
import shutil
import struct
import zipfile

from harness import MODELS, PHOTO, Case, golden

# The user's .npz checkpoints (the hub's google/NAME-jax), the task that each is for, and its prompt.
# Ref: the prefixes in big_vision's configs/proj/paligemma/transfers.
TASKS = {
    "paligemma-3b-pt-224": (["caption", PHOTO], "caption en"),
    "paligemma-3b-pt-448": (["ocr", PHOTO], "ocr"),
    "paligemma-3b-pt-896": (["detect", PHOTO, "cat ; dog"], "detect cat ; dog"),
    "paligemma-3b-ft-aokvqa-mc-448": (
        ["vqa", PHOTO, "what?", "--choices", "a ; b"], "answer en  what? choose from: a \t b"),
    "paligemma-3b-ft-textcaps-224": (["caption", PHOTO], "caption en"),
    "paligemma-3b-ft-widgetcap-448": (["caption", PHOTO, "--box", "1,2,9,9"], "caption en"),
    "paligemma-3b-ft-vqav2-448": (["vqa", PHOTO, "what?"], "answer en what?"),
    # Its `segment` needs a tokenizer with <loc> and <seg>, which the tiny one lacks: the prompt as it is.
    "paligemma-3b-ft-refcoco-seg-448": (["run", PHOTO, "-p", "left cat"], "left cat"),
}

# Every tensor of a PaliGemma 3B: V, D, L, F, N, K, H of Gemma 2B, Dv, Lv, Fv, Hv of SigLIP So400m/14, P positions.
# Ref: big_vision's models/vit.py and models/ppp/gemma.py; facts of transformers'
# convert_paligemma_weights_to_hf.py, which takes the same names apart.
BLOCK = "img/Transformer/encoderblock/"
ATTENTION = BLOCK + "MultiHeadDotProductAttention_0/"
SHAPES = {
    "img/embedding/kernel": "14 14 3 Dv", "img/embedding/bias": "Dv", "img/pos_embedding": "1 P Dv",
    BLOCK + "LayerNorm_0/scale": "Lv Dv", BLOCK + "LayerNorm_0/bias": "Lv Dv",
    BLOCK + "LayerNorm_1/scale": "Lv Dv", BLOCK + "LayerNorm_1/bias": "Lv Dv",
    ATTENTION + "query/kernel": "Lv Dv Nv Hv", ATTENTION + "query/bias": "Lv Nv Hv",
    ATTENTION + "key/kernel": "Lv Dv Nv Hv", ATTENTION + "key/bias": "Lv Nv Hv",
    ATTENTION + "value/kernel": "Lv Dv Nv Hv", ATTENTION + "value/bias": "Lv Nv Hv",
    ATTENTION + "out/kernel": "Lv Nv Hv Dv", ATTENTION + "out/bias": "Lv Dv",
    BLOCK + "MlpBlock_0/Dense_0/kernel": "Lv Dv Fv", BLOCK + "MlpBlock_0/Dense_0/bias": "Lv Fv",
    BLOCK + "MlpBlock_0/Dense_1/kernel": "Lv Fv Dv", BLOCK + "MlpBlock_0/Dense_1/bias": "Lv Dv",
    "img/Transformer/encoder_norm/scale": "Dv", "img/Transformer/encoder_norm/bias": "Dv",
    "img/head/kernel": "Dv D", "img/head/bias": "D",
    "llm/embedder/input_embedding": "V D", "llm/final_norm/scale": "D",
    "llm/layers/pre_attention_norm/scale": "L D", "llm/layers/pre_ffw_norm/scale": "L D",
    "llm/layers/attn/q_einsum/w": "L N D H", "llm/layers/attn/kv_einsum/w": "L 2 K D H",
    "llm/layers/attn/attn_vec_einsum/w": "L N H D",
    "llm/layers/mlp/gating_einsum": "L 2 D F", "llm/layers/mlp/linear": "L F D",
}
SIZES = dict(V=257152, D=2048, L=18, F=16384, N=8, K=1, H=256, Dv=1152, Lv=27, Fv=4304, Nv=16, Hv=72)
# Of google/paligemma-3b-pt-224 without the 64 rows that the Hugging Face conversion adds to the table.
PARAMETERS_224 = 2923466480 - 64 * 2048


def write_hollow_npz(path, arrays):
    """An .npz of f32 zeros as numpy.savez lays it out, with holes for the data: true sizes, no disk."""
    directory = b""
    with open(path, "wb") as file:
        for name, shape in arrays.items():
            head = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
            head = b"\x93NUMPY\1\0" + struct.pack("<H", len(head)) + head.encode()
            size = len(head)
            total = 4
            for n in shape:
                total *= n
            size += total
            at, member = file.tell(), (name + ".npy").encode()
            extra = struct.pack("<HHQQ", 1, 16, size, size)
            fixed = struct.pack("<HHHHIII", 0, 0, 0, 0, 0, 0xFFFFFFFF, 0xFFFFFFFF)
            file.write(b"PK\3\4" + struct.pack("<H", 45) + fixed + struct.pack("<HH", len(member), len(extra))
                       + member + extra + head)
            file.seek(total, 1)
            extra = struct.pack("<HHQQQ", 1, 24, size, size, at)
            directory += (b"PK\1\2" + struct.pack("<HH", 45, 45) + fixed
                          + struct.pack("<HHHHHII", len(member), len(extra), 0, 0, 0, 0, 0xFFFFFFFF) + member + extra)
        at = file.tell()
        count = len(arrays)
        file.write(directory)
        end = file.tell()
        file.write(b"PK\6\6" + struct.pack("<QHHIIQQQQ", 44, 45, 45, 0, 0, count, count, len(directory), at)
                   + b"PK\6\7" + struct.pack("<IQI", 0, end, 1)
                   + b"PK\5\6" + struct.pack("<HHHHIIH", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0))


def write_shards(source, folder, count):
    """model.safetensors of a folder as `count` files and their index."""
    content = (source / "model.safetensors").read_bytes()
    size = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8:8 + size])
    header.pop("__metadata__", None)
    names, weight_map = sorted(header), {}
    for i in range(count):
        file, own, data = f"model-{i + 1:05}-of-{count:05}.safetensors", {}, b""
        for name in names[i::count]:
            begin, end = header[name]["data_offsets"]
            own[name] = header[name] | {"data_offsets": [len(data), len(data) + end - begin]}
            data += content[8 + size + begin:8 + size + end]
            weight_map[name] = file
        text = json.dumps(own).encode()
        text += b" " * (-len(text) % 8)  # tensors where their elements may be read in place
        (folder / file).write_bytes(struct.pack("<Q", len(text)) + text + data)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def copy_prefixed(source, target, prefix):
    """An .npz whose members' names begin with `prefix` instead of "params/" or nothing."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(prefix + name.removeprefix("params/"), old.read(name))


class Formats(Case):
    def test_the_same_weights_in_every_container(self):
        """Equal tokens, and log-probabilities equal as far as they are printed."""
        for name, weights in (("paligemma", "paligemma_bin"), ("paligemma2", "paligemma2_bin"), ("t5gemma2", None)):
            source = MODELS / f"{name}_bf16"
            config = json.loads((source / "config.json").read_text())
            if weights:  # what big_vision's models always have, whatever a config says
                text = config["text_config"]
                text["final_logit_softcapping"] = text["sliding_window"] = None
                text["attn_logit_softcapping"], text["query_pre_attn_scalar"] = 50.0, text["head_dim"]
            folders = [self.folder / f"{name}-{kind}" for kind in ("folder", "shards", "bin")][:3 if weights else 2]
            for folder in folders:
                shutil.copytree(source, folder, ignore=shutil.ignore_patterns("golden*", "model*"))
                (folder / "config.json").write_text(json.dumps(config))
            shutil.copy(source / "model.safetensors", folders[0])
            write_shards(source, folders[1], 3)
            models = list(folders)
            if weights:
                for file in (MODELS / weights).glob("pytorch_model*"):
                    shutil.copy(file, folders[2])
                npz = next((MODELS / f"{name}_npz").glob("*.npz"))
                for kind, prefix in (("bare", ""), ("params", "params/")):
                    folder = self.folder / f"{name}-{kind}"
                    folder.mkdir()
                    copy_prefixed(npz, folder / npz.name, prefix)
                    shutil.copy(MODELS / f"{name}_npz" / "tokenizer.model", folder)
                    models.append(folder / npz.name)
            for model in list(models):
                converted = self.folder / f"{model.parent.name}-{model.name}.safetensors"
                self.ok("convert", model, "-o", converted)
                models.append(converted)
            for prompt in (golden(f"{name}_bf16")["cases"][0]["prompt"], "caption en"):
                rows = [self.ok("run", PHOTO, "-p", prompt, "-n", "12", "--json", "--preprocess", "hf", "-m", model).json()
                        for model in models]
                if not weights and prompt != "caption en":
                    self.assertEqual(rows[0]["text"], golden(f"{name}_bf16")["cases"][0]["greedy"]["text"])
                for model, row in zip(models, rows):
                    for field in ("tokens", "text", "logprob", "finish_reason", "preprocess"):
                        self.assertEqual(row[field], rows[0][field], (model.name, field))

    def test_every_checkpoint_runs_its_task(self):
        source = next((MODELS / "paligemma_npz").glob("*.npz"))
        for name, (arguments, prompt) in TASKS.items():
            folder = self.folder / (name + "-jax")
            folder.mkdir()
            model = folder / (name + ".npz")
            shutil.copy(source, model)
            shutil.copy(MODELS / "paligemma_npz" / "tokenizer.model", folder / "paligemma_tokenizer.model")
            style = name.removeprefix("paligemma-3b-").rpartition("-")[0]
            self.assertIn(f"tasks ({style})", self.ok("inspect", model).out)
            self.assertIn(f"tasks ({style})", self.ok("inspect", ".", cwd=folder).out)
            mix = self.ok("inspect", model, "--task-style", "mix")
            self.assertIn("tasks (mix)", mix.out)
            for path in (model, folder):  # the file, or the folder that the hub's cache would hold
                row = self.ok(*arguments, "-m", path, "--json", "-n", "3").json()
                self.assertEqual(row["prompt"], prompt, name)
                self.assertEqual(row["preprocess"], "bv-aa", name)
            row = self.ok(*arguments, "-m", model, "--json", "-n", "3", "--preprocess", "hf").json()
            self.assertEqual(row["preprocess"], "hf", name)

    def test_names_and_shapes_of_the_full_size(self):
        for side, prefix in ((224, ""), (448, "params/"), (896, "")):
            sizes = SIZES | {"P": (side // 14) ** 2}
            arrays = {prefix + name: tuple(sizes[s] if s in sizes else int(s) for s in shape.split())
                      for name, shape in SHAPES.items()}
            path = self.folder / f"paligemma-3b-pt-{side}.npz"
            write_hollow_npz(path, arrays)
            row = self.ok("inspect", path, "--json").json()
            self.assertEqual(row["format"], "big_vision")
            self.assertEqual(row["family"], "paligemma")
            self.assertEqual(row["parameters"], PARAMETERS_224 + ((side // 14) ** 2 - 256) * 1152)
            self.assertEqual(row["dtypes"], {"f32": row["parameters"]})
            config = row["config"]
            self.assertEqual(config["vision_config"]["image_size"], side)
            self.assertEqual(config["text_config"]["num_key_value_heads"], 1)
            self.assertEqual(config["text_config"]["model_type"], "gemma")
            path.unlink()

    def test_the_tiny_file_has_the_names_and_shapes_of_the_table(self):
        """Every letter of the table is one number throughout: what the tasks run on is laid out as the large files are."""
        sizes = {}
        with zipfile.ZipFile(next((MODELS / "paligemma_npz").glob("*.npz"))) as file:
            found = {}
            for name in file.namelist():
                raw = file.read(name)
                header = ast.literal_eval(raw[10:10 + struct.unpack("<H", raw[8:10])[0]].decode())
                found[name.removesuffix(".npy").removeprefix("params/")] = header["shape"]
        self.assertEqual(set(found), set(SHAPES))
        for name, letters in SHAPES.items():
            letters = letters.split()
            self.assertEqual(len(found[name]), len(letters), name)
            for size, letter in zip(found[name], letters):
                if name == "img/embedding/kernel" or letter in SIZES or letter == "P":
                    self.assertEqual(sizes.setdefault(letter, size), size, (name, letter))
                else:
                    self.assertEqual(size, int(letter), name)
        self.assertEqual(len(set(SIZES) - set(sizes)), 0)

    def test_missing_tensors_are_named_and_counted(self):
        sizes = SIZES | {"P": 256}
        arrays = {name: tuple(sizes[s] if s in sizes else int(s) for s in shape.split())
                  for name, shape in SHAPES.items() if "encoder_norm" not in name and "key" not in name}
        path = self.folder / "m.npz"
        write_hollow_npz(path, arrays)
        done = self.fails(1, "inspect", path, says=["56 tensors are missing", ", ...", "encoderblock", "m.npz"])
        self.assertEqual(done.err.count("'"), 2 * 5)

    def test_tensors_that_nobody_uses_are_one_warning(self):
        sizes = SIZES | {"P": 256}
        arrays = {name: tuple(sizes[s] if s in sizes else int(s) for s in shape.split())
                  for name, shape in SHAPES.items()}
        arrays |= {f"opt/{i}": (2, 2) for i in range(7)}
        path = self.folder / "m.npz"
        write_hollow_npz(path, arrays)
        done = self.ok("inspect", path)
        self.assertEqual(done.err.count("tensors are not used"), 1)
        self.assertIn("7 tensors are not used: 'opt/0'", done.err)

    def test_a_tokenizer_of_ones_own(self):
        model = self.folder / "paligemma-3b-mix-224.npz"
        shutil.copy(next((MODELS / "paligemma_npz").glob("*.npz")), model)
        self.fails(1, "caption", PHOTO, "-m", model, says=["no tokenizer", "--tokenizer FILE"])
        tokenizer = MODELS / "paligemma_npz" / "tokenizer.model"
        self.ok("caption", PHOTO, "-m", model, "--tokenizer", tokenizer, "-n", "3")
