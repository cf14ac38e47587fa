"""What errors say: one line whatever the names hold, and the next step in plain words."""
import os
import shutil
import subprocess

import harness
from harness import Case, MODELS, PHOTO

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 123\n"


class Messages(Case):
    def test_names_with_control_characters_stay_in_one_line(self):
        for name in [b"new\nline", b"tab\tand\rreturn", b"esc\x1b[31mred", b"del\x7f",
                     b"bad\xff\xc3", "next\u0085\u2028line \u202eright".encode(), b"\xed\xa0\x80"]:
            for arguments in [[b"caption", name], [b"caption", os.fsencode(PHOTO), b"-m", name],
                              [name], [b"caption", b"--" + name], [b"batch", name],
                              [b"caption", os.fsencode(PHOTO), b"--isa", name]]:
                done = subprocess.run([os.fsencode(harness.PALI), *arguments], capture_output=True,
                                      env=harness.environment("pali3"))
                self.assertIn(done.returncode, (1, 2))
                self.assertEqual(done.stdout, b"")
                text = done.stderr.decode("utf-8")
                self.assertEqual(len(text.splitlines()), 1, (arguments, text))
                self.assertTrue(text.startswith("pali: error: ") and text.endswith("\n"), text)
                self.assertTrue(text[:-1].isprintable(), (arguments, text))

    def test_ordinary_names_are_shown_as_they_are(self):
        self.fails(1, "caption", "café 图 🐈.png", says="(café 图 🐈.png)")

    def test_formats_that_are_not_read(self):
        for head, name in [(b"RIFF\x24\0\0\0WEBPVP8 ", "WebP"), (b"II*\0" + bytes(16), "TIFF"),
                           (b"\0\0\0\x20ftypavif" + bytes(16), "AVIF")]:
            self.fails(1, "caption", "-", stdin=head, says=[name, "magick - "])
            picture = self.folder / "it's"
            picture.write_bytes(head)
            self.fails(1, "caption", picture, says=[name, "convert it to PNG", "it's"])

    def copy(self, *names):
        target = self.folder / "m"
        shutil.rmtree(target, True)
        target.mkdir()
        for name in names:
            shutil.copy(MODELS / "ul2" / name, target)
        return target

    def test_folders_that_must_be_converted(self):
        model = self.copy("config.json", "spiece.model")
        (model / "pytorch_model.bin").write_bytes(b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.")
        self.fails(1, "run", "-m", model, says=["pytorch_model", "python3 -c", "save_file"])
        model = self.copy("config.json", "model.safetensors")
        (model / "tokenizer.json").write_text("{}")
        self.fails(1, "run", "-m", model, says=["field 'model' is missing", "tokenizer.json"])

    def test_models_of_other_kinds(self):
        for kind in ["idefics3", "llama", "gemma3"]:
            model = self.copy()
            (model / "config.json").write_text('{"model_type": "%s"}' % kind)
            for arguments in [["caption", PHOTO, "-m", model], ["inspect", model],
                              ["convert", model, "-o", self.folder / "x.safetensors"]]:
                self.fails(1, *arguments, says=[f"'{kind}' are not read by this version", "pali3"])

    def test_files_that_are_no_model(self):
        (self.folder / "x.gguf").write_bytes(b"GGUF" + bytes(20))
        (self.folder / "pytorch_model.bin").write_bytes(b"PK\3\4" + bytes(20))
        (self.folder / "x.npz").write_bytes(b"PK\3\4" + bytes(20))
        for name, says in [("x.gguf", ["GGUF", "folder"]), ("pytorch_model.bin", "give the folder"),
                           ("x.npz", ["no end of a zip directory", "x.npz"])]:
            self.fails(1, "inspect", self.folder / name, says=says)
        for name in ["config.json", "spiece.model", "model.safetensors"]:
            self.fails(1, "inspect", MODELS / "ul2" / name, says="give the folder")

    def test_names_of_the_hub(self):
        self.fails(1, "run", "-m", "google/flan-t5-small",
                   says=["huggingface", "hf download google/flan-t5-small"])
        done = self.fails(1, "run", "-m", self.folder / "nowhere")
        self.assertNotIn("hf download", done.err)

    def test_pointers_of_git_lfs(self):
        for name in ["config.json", "model.safetensors", "spiece.model"]:
            model = self.copy("config.json", "model.safetensors", "spiece.model")
            (model / name).write_bytes(POINTER)
            self.fails(1, "run", "-m", model, says=["Git LFS pointer", name, "git lfs pull"])
        picture = self.folder / "p.png"
        picture.write_bytes(POINTER)
        self.fails(1, "caption", picture, says="Git LFS pointer")

    def test_half_a_model(self):
        self.fails(1, "classify", PHOTO, "cat", model="siglip_vision", says="use another model")
