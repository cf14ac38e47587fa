"""Bad input at the command line: one line of error or a right answer, never a crash."""
import json
import os
import random
import resource
import shutil
import subprocess

import harness
from harness import Case, IMAGES, MODELS, PHOTO, pali


class Misuse(Case):
    def decent(self, done, what):
        """An answer, or one line of error; never a signal."""
        self.assertIn(done.status, (0, 1), (what, done.status, done.err))
        if done.status == 1:
            errors = [line for line in done.err.splitlines()
                      if not line.startswith("pali: warning: ")]
            self.assertEqual(len(errors), 1, (what, done.err))
            self.assertTrue(errors[0].startswith("pali: error: "), (what, done.err))
            self.assertEqual(done.out, "", what)
            self.assertLess(len(errors[0]), 1000, what)
        else:
            done.raw.decode("utf-8")

    def test_images_that_are_none(self):
        empty = self.folder / "empty.png"
        empty.write_bytes(b"")
        text = self.folder / "text.png"
        text.write_text("no picture")
        closed = self.folder / "closed.png"
        closed.write_bytes(PHOTO.read_bytes())
        self.fails(1, "caption", self.folder / "none.png", says="none.png")
        self.fails(1, "caption", self.folder, says="folder")
        self.fails(1, "caption", empty, says="empty.png")
        self.fails(1, "caption", text, says="text.png")
        self.fails(1, "caption", "", says="")
        if os.geteuid() != 0:
            closed.chmod(0)
            self.fails(1, "caption", closed)

    def test_named_pipes_are_not_waited_for(self):
        pipe = self.folder / "pipe"
        os.mkfifo(pipe)
        self.fails(1, "caption", pipe, says="not a regular file")
        self.fails(1, "caption", PHOTO, "-m", pipe, model=None, says="not a regular file")
        self.fails(1, "inspect", pipe, says="not a regular file")

    def test_truncated_images(self):
        for name in ["rgb_37x53.png", "rgb420.jpg", "rgb.bmp", "two_frames.gif", "rgb.ppm"]:
            whole = (IMAGES / name).read_bytes()
            for cut in (1, len(whole) // 4, len(whole) // 2, 3 * len(whole) // 4):
                self.fails(1, "caption", "-", stdin=whole[:cut], says="stdin")

    def test_a_hostile_header_of_a_picture(self):
        header = bytearray((IMAGES / "rgb.bmp").read_bytes())
        header[18:26] = (30000).to_bytes(4, "little") * 2
        self.fails(1, "caption", "-", stdin=bytes(header), says="pixels")

    def test_a_picture_of_20000x20(self):
        picture = b"P5 20000 20 255\n" + bytes(400000)
        self.ok("caption", "-", "-n", "2", stdin=picture)

    def test_models_that_are_none(self):
        self.fails(1, "caption", PHOTO, "-m", self.folder / "none", says="none")
        self.fails(1, "caption", PHOTO, "-m", self.folder)
        self.fails(1, "caption", PHOTO, "-m", PHOTO)
        empty = self.folder / "empty.safetensors"
        empty.write_bytes(b"")
        self.fails(1, "caption", PHOTO, "-m", empty, says="empty")
        self.fails(1, "caption", PHOTO, model="missing")
        self.fails(1, "inspect", self.folder / "none", says="none")

    def model_copy(self):
        target = self.folder / "model"
        if target.exists():
            shutil.rmtree(target)
        shutil.copytree(MODELS / "pali3", target)
        return target

    def test_files_that_are_missing(self):
        for name in ["config.json", "model.safetensors", "spiece.model"]:
            model = self.model_copy()
            (model / name).unlink()
            self.fails(1, "caption", PHOTO, "-m", model)

    def test_files_that_are_truncated(self):
        for name in ["config.json", "model.safetensors", "spiece.model"]:
            whole = (MODELS / "pali3" / name).read_bytes()
            for part in range(6):
                model = self.model_copy()
                (model / name).write_bytes(whole[:len(whole) * part // 6])
                self.decent(pali("caption", PHOTO, "-n", "2", "-m", model), (name, part))

    def test_bits_that_are_flipped(self):
        chance = random.Random(5)
        for name, start in [("config.json", 1.0), ("model.safetensors", 0.1),
                            ("spiece.model", 0.3)]:
            whole = (MODELS / "pali3" / name).read_bytes()
            for _ in range(15):
                broken = bytearray(whole)
                at = chance.randrange(max(1, int(len(whole) * start)))
                broken[at] ^= 1 << chance.randrange(8)
                model = self.model_copy()
                (model / name).write_bytes(broken)
                self.decent(pali("caption", PHOTO, "-n", "2", "-m", model), (name, at))

    def test_configs_that_ask_for_too_much(self):
        config = json.loads((MODELS / "pali3" / "config.json").read_text())

        def deepest(value, path=()):
            for key, item in value.items():
                if isinstance(item, dict):
                    yield from deepest(item, path + (key,))
                elif isinstance(item, int) and not isinstance(item, bool):
                    yield path + (key,)

        for path in deepest(config):
            for value in (1 << 40, -1, 0, 1 << 62):
                broken = json.loads(json.dumps(config))
                place = broken
                for key in path[:-1]:
                    place = place[key]
                place[path[-1]] = value
                model = self.model_copy()
                (model / "config.json").write_text(json.dumps(broken))
                self.decent(pali("caption", PHOTO, "-n", "2", "-m", model), (path, value))

    def test_a_header_that_lies_about_its_size(self):
        for size in (0, 7, 1 << 20, 1 << 40, (1 << 64) - 1):
            model = self.model_copy()
            whole = bytearray((model / "model.safetensors").read_bytes())
            whole[:8] = size.to_bytes(8, "little")
            (model / "model.safetensors").write_bytes(whole)
            self.fails(1, "caption", PHOTO, "-m", model, says="model.safetensors")

    def test_wrong_shapes_and_types(self):
        whole = (MODELS / "pali3" / "model.safetensors").read_bytes()
        size = int.from_bytes(whole[:8], "little")
        for what in ["dtype", "shape", "offsets", "missing"]:
            header = json.loads(whole[8:8 + size])
            name = next(n for n in sorted(header) if n != "__metadata__"
                        and len(header[n]["shape"]) == 2
                        and header[n]["shape"][0] != header[n]["shape"][1])
            tensor = header[name]
            if what == "dtype":
                tensor["dtype"] = "I32"
            elif what == "shape":
                tensor["shape"].reverse()
            elif what == "offsets":
                tensor["data_offsets"][1] += 4
            else:
                header["other"] = header.pop(name)
            text = json.dumps(header).encode()
            model = self.model_copy()
            (model / "model.safetensors").write_bytes(
                len(text).to_bytes(8, "little") + text + whole[8 + size:])
            done = self.fails(1, "caption", PHOTO, "-m", model, says="model.safetensors"
                              if what != "missing" else "")
            self.assertIn(name, done.err, what)

    def limited(self, *arguments, stdin=b""):
        """With two gigabytes of address space beside what the program itself takes."""
        def limit():
            resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))
        done = subprocess.run([harness.PALI, *map(str, arguments)], input=stdin,
                              capture_output=True, env=harness.environment("pali3"), timeout=60,
                              preexec_fn=None if harness.sanitized() else limit)
        return harness.Outcome(done.returncode, done.stdout, done.stderr)

    def test_a_damaged_pali_checkpoint(self):
        file = self.folder / "model.safetensors"
        self.ok("convert", MODELS / "pali3", "-o", file)
        whole = file.read_bytes()
        header = 8 + int.from_bytes(whole[:8], "little")
        chance = random.Random(6)
        for part in range(8):
            file.write_bytes(whole[:len(whole) * part // 8])
            for verb in (["caption", PHOTO, "-m"], ["inspect"]):
                done = self.limited(*verb, file)
                self.assertEqual(done.status, 1, part)
                self.decent(done, part)
        for _ in range(30):
            at = chance.randrange(header)
            broken = bytearray(whole)
            broken[at] ^= 1 << chance.randrange(8)
            file.write_bytes(broken)
            self.decent(self.limited("caption", PHOTO, "-n", "2", "-m", file), at)
        for size in (1 << 20, 1 << 40, (1 << 64) - 1):
            file.write_bytes(size.to_bytes(8, "little") + whole[8:])
            self.assertEqual(self.limited("inspect", file).status, 1, size)

    def test_damaged_images(self):
        chance = random.Random(7)
        for name in ["rgb_37x53.png", "rgb420.jpg", "progressive.jpg", "rgb.bmp", "two_frames.gif",
                     "rgb.ppm"]:
            whole = (IMAGES / name).read_bytes()
            for _ in range(5):
                broken = bytearray(whole)
                for _ in range(3):
                    at = chance.randrange(min(len(whole), 200))
                    broken[at] ^= 1 << chance.randrange(8)
                self.decent(self.limited("caption", "-", "-n", "1", stdin=bytes(broken)), name)

    def test_the_wrong_tokenizer(self):
        self.decent(pali("caption", PHOTO, "-n", "2", "--tokenizer",
                         MODELS / "t5_v1_1" / "spiece.model"), "tokenizer")
        self.fails(1, "caption", PHOTO, "--tokenizer", PHOTO)
        self.fails(1, "caption", PHOTO, "--tokenizer", self.folder / "none", says="none")

    def test_unsupported_types_say_so(self):
        for integers in ("int8", "int16"):
            self.fails(1, "caption", PHOTO, "--compute", integers, says=f"{integers} products need int8 or int4 weights")
