"""Files in and out: embed, convert, inspect, -o, pipes and interrupts."""
import json
import os
import signal
import struct
import subprocess
import time

import harness
from harness import Case, IMAGES, MODELS, PHOTO, SETTINGS, golden, pali


def read_npy(path):
    raw = path.read_bytes()
    assert raw[:8] == b"\x93NUMPY\x01\x00", raw[:8]
    size, = struct.unpack("<H", raw[8:10])
    assert (10 + size) % 64 == 0
    header = eval(raw[10:10 + size])  # a Python literal, by the format's definition
    assert header["descr"] == "<f4" and not header["fortran_order"], header
    count = 1
    for n in header["shape"]:
        count *= n
    body = raw[10 + size:]
    assert len(body) == 4 * count, (len(body), header)
    return header["shape"], struct.unpack(f"<{count}f", body)


class Embed(Case):
    def test_images_as_lines_and_as_an_array(self):
        other = IMAGES / "gray.png"
        lines = self.ok("embed", PHOTO, other, model="siglip_two_tower").lines()
        self.assertEqual([list(line) for line in lines], [["image", "embedding", *SETTINGS]] * 2)
        self.assertEqual(lines[1]["image"], str(other))
        target = self.folder / "e.npy"
        self.ok("embed", PHOTO, other, "-o", target, model="siglip_two_tower")
        shape, values = read_npy(target)
        self.assertEqual(shape, (2, len(lines[0]["embedding"])))
        flat = lines[0]["embedding"] + lines[1]["embedding"]
        self.assertEqual([struct.unpack("<f", struct.pack("<f", v))[0] for v in flat],
                         list(values))

    def test_texts(self):
        lines = self.ok("embed", "--text", "a cat", "Ein Hund", model="siglip_two_tower").lines()
        self.assertEqual([line["text"] for line in lines], ["a cat", "Ein Hund"])
        self.assertEqual(list(lines[0]), ["text", "embedding", *SETTINGS])
        self.assertNotEqual(lines[0]["embedding"], lines[1]["embedding"])

    def test_tokens(self):
        for extra in [[], ["--projected"]]:
            line = self.ok("embed", PHOTO, "--tokens", *extra).json()
            self.assertEqual(list(line), ["image", "shape", "tokens_embedding", *SETTINGS])
            rows, columns = line["shape"]
            self.assertEqual(len(line["tokens_embedding"]), rows * columns)
            target = self.folder / "t.npy"
            self.ok("embed", PHOTO, "--tokens", *extra, "-o", target)
            self.assertEqual(read_npy(target)[0], (rows, columns))
        target = self.folder / "two.npy"
        self.ok("embed", PHOTO, PHOTO, "--tokens", "-o", target)
        self.assertEqual(read_npy(target)[0][0], 2)

    def test_models_without_the_head(self):
        self.fails(1, "embed", PHOTO, says="pooling head")
        self.fails(1, "embed", PHOTO, model="t5_v1_1", says="use a SigLIP model")
        self.fails(1, "embed", "--text", "a", says="text tower")
        self.fails(1, "caption", PHOTO, model="siglip_two_tower", says="language model")
        self.fails(1, "run", PHOTO, "-p", "x", model="t5_v1_1", says="text-only")


class Convert(Case):
    def test_a_task_style_that_nobody_knows_is_the_fault_of_the_file(self):
        target = self.folder / "out.safetensors"
        self.ok("convert", harness.MODELS / "paligemma", "-o", target)
        styled = target.read_bytes()
        for style, says in ((b"zz", "unknown task style 'zz'"), (b"PT", None)):
            target.write_bytes(styled.replace(b'"task_style":"pt"', b'"task_style":"%s"' % style))
            if says is None:
                self.assertIn("tasks (pt)", self.ok("inspect", target).out)
            else:
                self.fails(1, "inspect", target, says=[says, "metadata task_style"])
            self.assertIn("tasks (mix)", self.ok("inspect", target, "--task-style", "mix").out)

    def test_a_converted_model_gives_the_same_bits(self):
        target = self.folder / "one file.safetensors"
        done = self.ok("convert", MODELS / "pali3", "-o", target)
        self.assertEqual(done.out, "")
        self.assertIn("wrote", done.err)
        for arguments in [["caption", PHOTO], ["run", PHOTO, PHOTO, "-p", "x", "--beams", "3"],
                          ["score", PHOTO, "a cat"]]:
            folder = self.ok(*arguments, "--json").json()
            file = self.ok(*arguments, "--json", "-m", target).json()
            folder.pop("timing", None)
            file.pop("timing", None)
            self.assertEqual(folder, file)

    def test_bf16_and_back(self):
        target = self.folder / "b.safetensors"
        self.ok("convert", MODELS / "ul2", "-o", target, "--dtype", "bf16")
        report = self.ok("inspect", target, "--json").json()
        self.assertEqual(report["format"], "pali")
        self.assertIn("bf16", report["dtypes"])
        self.ok("run", "-m", target, "-p", "x", "-n", "3")

    def test_parts_become_a_pali3(self):
        parts = MODELS / "pali3_parts"
        target = self.folder / "p.safetensors"
        self.ok("convert", "--vision", parts / "vision", "--language", parts / "language",
                "--projector", parts / "projector.safetensors", "-o", target)
        found = self.ok("caption", PHOTO, "-m", target, "--json", "-n", "4").json()
        self.assertEqual(len(found["tokens"]) <= 4, True)
        self.assertEqual(self.ok("inspect", target, "--json").json()["family"], "pali3")

    def test_other_encoders_take_the_place_of_siglip(self):
        for name in ("vit", "clip"):
            target = self.folder / f"{name}.safetensors"
            self.ok("convert", "--vision", MODELS / name, "--language", MODELS / "pali3", "--projector",
                    MODELS / name / "projector.safetensors", "-o", target)
            report = self.ok("inspect", target, "--json").json()
            self.assertEqual(report["family"], "pali3-" + name)
            self.assertEqual(report["config"]["vision_feature_select_strategy"], {"vit": "full", "clip": "default"}[name])
            self.assertEqual(self.ok("inspect", MODELS / name, "--json").json()["family"], name)
            case = golden(name)["cases"][0]
            found = self.ok("run", IMAGES / case["images"][0], "-p", case["prompt"], "-m", target, "--json",
                            "--dtype", "f32", "-n", "12").json()
            self.assertEqual(found["text"], case["greedy"]["text"])
            shape = self.ok("embed", PHOTO, "--tokens", "-m", target, "--json").json()["shape"]
            self.assertEqual(shape, [10, 24])
            shape = self.ok("embed", PHOTO, "--tokens", "--projected", "-m", target, "--json").json()["shape"]
            self.assertEqual(shape, [{"vit": 10, "clip": 9}[name], 28])
        self.fails(1, "embed", PHOTO, "-m", MODELS / "vit", says="no pooling head")
        self.fails(1, "embed", PHOTO, "-m", MODELS / "t5_v1_1", says=["no vision tower", "SigLIP"])

    def test_a_random_projector_is_a_warning_and_depends_on_the_seed(self):
        parts = MODELS / "pali3_parts"
        written = []
        for seed in [1, 1, 2]:
            target = self.folder / f"{len(written)}.safetensors"
            done = self.ok("convert", "--vision", parts / "vision", "--language",
                           parts / "language", "--seed", seed, "-o", target)
            self.assertIn("pali: warning: ", done.err)
            written.append(target.read_bytes())
        self.assertEqual(written[0], written[1])
        self.assertNotEqual(written[0], written[2])

    def test_resolution(self):
        parts = MODELS / "pali3_parts"
        target = self.folder / "r.safetensors"
        self.ok("convert", "--vision", parts / "vision", "--language", parts / "language",
                "--projector", parts / "projector.safetensors", "--resolution", "84", "-o", target)
        self.ok("caption", PHOTO, "-m", target, "-n", "2")

    def test_calibration(self):
        requests = self.folder / "requests.jsonl"
        lines = [{"image": str(PHOTO), "task": task, "max_tokens": 4} for task in ("caption", "ocr")]
        requests.write_text("".join(json.dumps(line) + "\n" for line in lines))
        target = self.folder / "int4.safetensors"
        done = self.ok("convert", MODELS / "pali3", "-o", target, "--dtype", "int4", "--calibrate", requests)
        self.assertIn("products", done.err)
        report = self.ok("convert", MODELS / "pali3", "-o", target, "--dtype", "int4", "--calibrate", requests,
                         "--max-error", "100", "--compute", "int8", "-t", "1", "--json").json()
        calibrated = {x["name"]: x["dtype"] for x in report["quantised"] if "product_error" in x}
        self.assertEqual(calibrated.pop("lm.embed"), "int8")  # the tied head's, never int4
        self.assertEqual(set(calibrated.values()), {"int4"})
        self.ok("caption", PHOTO, "-m", target, "-n", "2")
        before = target.read_bytes()
        self.usage("convert", MODELS / "pali3", "-o", target, "--calibrate", requests, says="--dtype int8 or int4")
        self.usage("convert", MODELS / "pali3", "-o", target, "--dtype", "int4", "--max-error", "1",
                   says="--max-error without --calibrate")
        convert = ("convert", MODELS / "pali3", "-o", target, "--dtype", "int4", "--calibrate")
        self.fails(1, *convert, self.folder / "none.jsonl", says="no such file")
        requests.write_text("\n")
        self.fails(1, *convert, requests, says="without a request")
        requests.write_text(json.dumps(lines[0]) + "\n\n{\n")
        self.fails(1, *convert, requests, says="line 3")
        requests.write_text("".join(json.dumps(line) + "\n" for line in [lines[0], {**lines[0], "max_tokens": 10**9}]))
        self.fails(1, *convert, requests, says="line 2")
        self.assertEqual(target.read_bytes(), before)

    def test_pipes_and_devices_keep_their_places(self):
        pipe = self.folder / "pipe"
        os.mkfifo(pipe)  # stands for /dev/null, which a test should not bet on
        self.fails(1, "convert", MODELS / "ul2", "-o", pipe, says="pipe")
        self.fails(1, "detect", PHOTO, "cat", "--draw", pipe, "-n", "2", says="pipe")
        self.assertTrue(pipe.is_fifo())
        self.assertEqual(self.files(), ["pipe"])

    def test_standard_output_is_no_place(self):
        self.usage("convert", MODELS / "ul2", "-o", "-", says="not standard output",
                   cwd=self.folder)
        self.assertEqual(self.files(), [])

    def test_json(self):
        target = self.folder / "x.safetensors"
        done = self.ok("convert", MODELS / "ul2", "-o", target, "--json").json()
        self.assertEqual(list(done), ["output", "tensors", "bytes"])
        self.assertEqual(done["output"], str(target))

    def test_quantised(self):
        for dtype, most in (("int8", 0.02), ("int4", 0.12)):
            target = self.folder / f"{dtype}.safetensors"
            done = self.ok("convert", MODELS / "pali3", "-o", target, "--dtype", dtype)
            self.assertRegex(done.err, rf"pali: {dtype} +\d+\.\d+ % +\d+\.\d+ %  vision\.blocks\.0\.mlp\.up\.weight\n")
            again = self.ok("convert", MODELS / "pali3", "-o", target, "--dtype", dtype, "--json").json()
            self.assertGreater(len(again["quantised"]), 10)
            errors = [t["rms_error"] for t in again["quantised"] if t["dtype"] == dtype]
            self.assertEqual(done.err.count(f"pali: {dtype} "), len(errors) + 1)  # the last: their mean
            self.assertRegex(done.err, rf"pali: {dtype} +{100 * sum(errors) / len(errors):.3f} % +mean of "
                                       rf"{len(errors)} tensors\n")
            for tensor in again["quantised"]:
                self.assertTrue(0 < tensor["rms_error"] < most, tensor)
            self.assertIn({"name": "projector.weight", "dtype": "bf16", "refused": dtype, "rms_error": 0.0},
                          again["kept"])
            self.assertRegex(done.err, rf"pali: bf16 +- never {dtype} +projector\.weight\n")
            listed = self.ok("inspect", target, "--tensors").out
            self.assertRegex(listed, rf"vision\.blocks\.0\.mlp\.up\.weight\t{dtype}\t")
            self.assertIn(dtype, self.ok("inspect", target).out)
            file = self.ok("caption", PHOTO, "-m", target, "-n", "4", "--json").json()
            load = self.ok("caption", PHOTO, "-m", MODELS / "pali3", "--dtype", dtype, "-n", "4", "--json").json()
            self.assertEqual(file["tokens"], load["tokens"])
            self.assertEqual(file["logprob"], load["logprob"])
            self.assertEqual(file["dtype"], load["dtype"])

    def test_failures_leave_nothing(self):
        self.fails(1, "convert", MODELS / "nowhere", "-o", self.folder / "x.safetensors")
        self.fails(1, "convert", MODELS / "ul2", "-o", self.folder / "no" / "x.safetensors")
        self.assertEqual(self.files(), [])


class Inspect(Case):
    def test_fields(self):
        report = self.ok("inspect", "--json").json()
        self.assertEqual(list(report), ["format", "family", "parameters", "dtypes", "config",
                                        "memory_bytes", "task_style", "prompts"])
        self.assertIsNone(report["task_style"])
        self.assertEqual(report["prompts"]["detect"], "detect: {objects}")
        self.assertEqual(report["format"], "huggingface")
        self.assertEqual(report["family"], "pali3")
        self.assertEqual(sum(report["dtypes"].values()), report["parameters"])
        self.assertIsInstance(report["config"], dict)
        by_path = self.ok("inspect", MODELS / "pali3", "--json", model=None).out
        by_option = self.ok("inspect", "-m", MODELS / "pali3", "--json", model=None).out
        self.assertEqual(by_path, by_option)

    def test_tensors(self):
        lines = self.ok("inspect", "--tensors", "--json").lines()
        for line in lines:
            self.assertEqual(list(line), ["name", "dtype", "shape", "bytes"])
        text = self.ok("inspect", "--tensors").out.splitlines()
        self.assertEqual(len(text), len(lines))
        self.assertEqual(text[0].split("\t")[0], lines[0]["name"])

    def test_text_names_the_family(self):
        self.assertIn("pali3", self.ok("inspect").out)

    def test_every_tiny_model(self):
        for config in sorted(MODELS.glob("*/config.json")):
            with self.subTest(model=config.parent.name):
                self.ok("inspect", config.parent, "--json")


class Output(Case):
    def test_a_file_holds_what_stdout_would(self):
        target = self.folder / "antwort – é.txt"
        done = self.ok("caption", PHOTO, "-n", "5", "-o", target)
        self.assertEqual(done.out, "")
        self.assertEqual(target.read_text(), self.ok("caption", PHOTO, "-n", "5").out)
        self.assertEqual(self.files(), [target.name])

    def test_a_dash_is_stdout(self):
        self.assertEqual(self.ok("caption", PHOTO, "-n", "5", "-o", "-").out,
                         self.ok("caption", PHOTO, "-n", "5").out)

    def test_failures_leave_no_file_and_keep_the_old_one(self):
        target = self.folder / "out.txt"
        self.fails(1, "caption", "missing.png", "-o", target)
        self.assertEqual(self.files(), [])
        target.write_text("old")
        self.fails(1, "caption", PHOTO, "missing.png", "-o", target)
        self.assertEqual(target.read_text(), "old")
        self.assertEqual(self.files(), ["out.txt"])

    def test_places_that_cannot_be_written(self):
        self.fails(1, "caption", PHOTO, "-n", "2", "-o", self.folder, says="folder")
        self.fails(1, "caption", PHOTO, "-n", "2", "-o", self.folder / "no" / "out.txt")

    def test_devices_are_written_not_replaced(self):
        self.ok("caption", PHOTO, "-n", "2", "-o", os.devnull)
        self.assertTrue(os.path.exists(os.devnull) and not os.path.isfile(os.devnull))

    def test_links_are_followed(self):
        target, link = self.folder / "target.txt", self.folder / "link.txt"
        target.write_text("old")
        target.chmod(0o600)
        link.symlink_to(target)
        self.ok("caption", PHOTO, "-n", "2", "-o", link)
        self.assertTrue(link.is_symlink())
        self.assertNotEqual(target.read_text(), "old")
        self.assertEqual(target.stat().st_mode & 0o777, 0o600)

    def test_names_of_open_files(self):
        expected = self.ok("caption", PHOTO, "-n", "2").out
        for name in ["/dev/stdout", "/proc/self/fd/1"]:
            if not os.path.exists(name):
                self.skipTest("no " + name)
            self.assertEqual(self.ok("caption", PHOTO, "-n", "2", "-o", name).out, expected)
            with open(self.folder / "out.txt", "wb") as out:
                subprocess.run([harness.PALI, "caption", str(PHOTO), "-n", "2", "-o", name],
                               stdout=out, env=harness.environment("pali3"), check=True)
            self.assertEqual((self.folder / "out.txt").read_text(), expected)

    def test_help_to_a_full_disk_is_an_error(self):
        if not os.path.exists("/dev/full"):
            self.skipTest("no /dev/full")
        for arguments in (["--help"], ["--version"], ["caption", "--help"]):
            with open("/dev/full", "wb") as full:
                done = subprocess.run([harness.PALI, *arguments], stdout=full,
                                      stderr=subprocess.PIPE)
            self.assertEqual(done.returncode, 1, arguments)

    def test_errors_leave_no_half_line(self):
        long = "x" * 200
        (self.folder / long).write_bytes(b"no picture")
        done = pali("caption", PHOTO, self.folder / long, "-n", "2")
        self.assertEqual(done.status, 1)
        self.assertTrue(done.out.endswith("\n") and done.out.count("\n") == 1, done.out)

    def test_a_full_disk_is_an_error(self):
        if not os.path.exists("/dev/full"):
            self.skipTest("no /dev/full")
        with open("/dev/full", "wb") as full:
            done = subprocess.run([harness.PALI, "caption", str(PHOTO), "-n", "2"], stdout=full,
                                  stderr=subprocess.PIPE, env=harness.environment("pali3"))
        self.assertEqual(done.returncode, 1)
        self.assertEqual(done.stderr.count(b"\n"), 1)
        self.assertIn(b"standard output", done.stderr)

    def test_a_closed_pipe_ends_quietly(self):
        """By the signal, as a shell expects of `pali ... | head`, even where the caller ignores it."""
        def ignore():
            signal.signal(signal.SIGPIPE, signal.SIG_IGN)
        for arguments in [["caption", "--json", *[str(PHOTO)] * 40], ["inspect", "--tensors"],
                          ["embed", "--tokens", *[str(PHOTO)] * 20]]:
            how = {"stderr": subprocess.PIPE, "env": harness.environment("pali3"), "preexec_fn": ignore}
            process = subprocess.Popen([harness.PALI, *arguments], stdout=subprocess.PIPE, **how)
            process.stdout.read(1)
            process.stdout.close()
            err = process.stderr.read()
            process.stderr.close()
            # What was short enough lay in the pipe before it was closed.
            self.assertIn(process.wait(60), (0, -signal.SIGPIPE), arguments)
            self.assertEqual(err, b"", arguments)

            reader, writer = os.pipe()
            os.close(reader)  # before the first byte
            done = subprocess.run([harness.PALI, *arguments], stdout=writer, timeout=60, **how)
            os.close(writer)
            self.assertEqual((done.returncode, done.stderr), (-signal.SIGPIPE, b""), arguments)

    def test_nothing_but_the_answer_on_stdout(self):
        done = self.ok("caption", PHOTO, "-n", "2", "-v")
        self.assertEqual(done.out.count("\n"), 1)
        self.assertNotIn("\x1b", done.err)  # no bar where stderr is no terminal


class Interrupt(Case):
    def start(self, *arguments, **how):
        return subprocess.Popen([harness.PALI, *map(str, arguments)], stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, env=harness.environment("pali3"), **how)

    def finish(self, process):
        out, err = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 130, (out, err))
        self.assertNotIn(b"pali: error", err)
        return out

    def test_a_stream_that_is_interrupted(self):
        process = self.start("caption", "--stream", *[PHOTO] * 3000)  # seconds of work
        process.stdout.read(1)
        process.send_signal(signal.SIGINT)
        self.finish(process)

    def test_output_files_do_not_appear(self):
        process = self.start("batch", "-", "-o", self.folder / "out.jsonl", stdin=subprocess.PIPE)
        line = json.dumps({"image": str(PHOTO), "max_tokens": 2}).encode() + b"\n"
        process.stdin.write(line)
        process.stdin.flush()
        deadline = time.time() + 60
        while not self.files() and time.time() < deadline:
            time.sleep(0.01)
        self.assertNotEqual(self.files(), [])  # being written beside its place
        process.send_signal(signal.SIGINT)
        # It waits for its next line: the two seconds of patience end it.
        self.assertEqual(process.wait(60), 130)
        self.finish(process)
        self.assertEqual(self.files(), [])

    def test_a_terminal_that_closes(self):
        def notice():  # nohup, where the tests run under it, would pass its own wish on
            signal.signal(signal.SIGHUP, signal.SIG_DFL)
        process = self.start("batch", "-", "-o", self.folder / "out.jsonl", stdin=subprocess.PIPE,
                             preexec_fn=notice)
        deadline = time.time() + 60
        while not self.files() and time.time() < deadline:
            time.sleep(0.01)
        process.send_signal(signal.SIGHUP)
        time.sleep(0.3)
        self.finish(process)
        self.assertEqual(self.files(), [])

    def test_an_input_that_ends_after_the_interrupt_does_not_count(self):
        process = self.start("batch", "-", "-o", self.folder / "out.jsonl", stdin=subprocess.PIPE)
        deadline = time.time() + 60
        while not self.files() and time.time() < deadline:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        time.sleep(0.3)
        self.finish(process)  # closes its stdin
        self.assertEqual(self.files(), [])
