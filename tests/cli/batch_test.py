"""batch: JSON Lines in and out."""
import json
import resource
import subprocess

import harness
from harness import Case, IMAGES, PHOTO, pali


class Batch(Case):
    def lines(self, *objects):
        path = self.folder / "in.jsonl"
        path.write_text("".join(json.dumps(o) + "\n" for o in objects))
        return path

    def run_batch(self, status, path, *arguments):
        target = self.folder / "out.jsonl"
        done = pali("batch", path, "-o", target, *arguments)
        self.assertEqual(done.status, status, done.err)
        self.assertEqual(done.out, "")
        return [json.loads(line) for line in target.read_text().splitlines()]

    def test_answers_are_the_verbs(self):
        photo, other = str(PHOTO), str(IMAGES / "gray.png")
        path = self.lines(
            {"id": "a", "image": photo, "task": "caption", "max_tokens": 6},
            {"id": 2, "image": photo, "task": "vqa", "question": "why?"},
            {"id": [3], "image": other, "task": "ocr", "max-tokens": 5},
            {"id": None, "image": photo, "task": "detect", "objects": "cat", "max_tokens": 9},
            {"id": {"x": 5}, "image": [photo, other], "task": "run", "prompt": "x", "n": 4},
            {"image": photo, "beams": 3, "n_best": 2, "max_tokens": 4},
            {"id": 7, "prompt": "only words", "temp": 1.0, "seed": 4, "max_tokens": 5})
        found = self.run_batch(0, path)
        self.assertEqual([f["id"] for f in found], ["a", 2, [3], None, {"x": 5}, None, 7])
        alone = [
            ["caption", photo, "-n", "6"], ["vqa", photo, "why?"], ["ocr", other, "-n", "5"],
            ["detect", photo, "cat", "-n", "9"], ["run", photo, other, "-p", "x", "-n", "4"],
            ["caption", photo, "--beams", "3", "--n-best", "2", "-n", "4"],
            ["run", "-p", "only words", "--temp", "1", "--seed", "4", "-n", "5"]]
        for line, arguments in zip(found, alone):
            expected = self.ok(*arguments, "--json").json()
            self.assertEqual(list(line), ["id"] + list(expected))
            for key in ["image", "prompt", "text", "tokens", "finish_reason"]:
                self.assertEqual(line[key], expected[key], arguments)
            self.assertAlmostEqual(line["logprob"], expected["logprob"], delta=1e-4)

    def test_one_bad_line_never_stops_the_others(self):
        photo = str(PHOTO)
        path = self.folder / "in.jsonl"
        good = json.dumps({"id": 1, "image": photo, "max_tokens": 3})
        bad = [
            "{", "[1, 2]", "17", '"text"', "null", "[" * 5000, '{"id": 9, "image": 5}',
            '{"id": 10, "image": "nowhere.png"}', '{"id": 11, "image": "%s", "task": "x"}' % photo,
            '{"id": 12, "image": "%s", "beams": 0}' % photo,
            '{"id": 13, "image": "%s", "temp": "hot"}' % photo,
            '{"id": 14, "image": "%s", "max_tokens": 1.5}' % photo,
            '{"id": 15, "image": "%s", "top_p": 7}' % photo,
            '{"id": 16, "image": "%s", "max_tokens": -4}' % photo,
            '{"id": 17, "image": "%s", "task": "vqa", "question": ""}' % photo,
            '{"id": 18, "task": "caption"}',
            '{"id": 19, "image": "%s", "prompt": "a", "question": "b"}' % photo,
            '{"id": 20, "image": "%s", "seed": -1}' % photo]
        text = []
        for line in bad:
            text += [line, good]
        path.write_text("\n".join(text) + "\n")
        found = self.run_batch(1, path)
        self.assertEqual(len(found), 2 * len(bad))
        for i, line in enumerate(bad):
            self.assertEqual(list(found[2 * i]), ["id", "error"], line)
            self.assertEqual(list(found[2 * i]["error"]), ["code", "message"])
            self.assertIn("text", found[2 * i + 1])
        self.assertEqual(found[14]["id"], 10)
        self.assertEqual(found[14]["error"]["code"], "not_found")
        self.assertEqual(found[18]["error"]["code"], "invalid_argument")

    def test_fields_that_a_task_has_no_use_for(self):
        path = self.lines({"image": str(PHOTO), "task": "caption", "prompt": "x", "max_tokens": 1})
        self.assertIn("'prompt' is not used", self.ok("batch", path).err)

    def test_fields_of_locating_and_choosing(self):
        photo = str(PHOTO)
        path = self.lines({"image": photo, "task": "segment", "objects": "cat"},
                          {"image": photo, "question": "what?", "choices": ["a", "b"]},
                          {"image": photo, "question": "what?", "choices": "a"},
                          {"image": photo, "box": [1, 2, 3]},
                          {"image": photo, "box": [1, 2, 3, 4]},
                          {"image": photo, "objects": "cat", "constrain": "yes"},
                          {"image": photo, "objects": "cat", "constrain": True})
        said = [line["error"]["message"] for line in self.run_batch(1, path)]
        for message, part in zip(said, ["no prompt for the task segment", "no place for choices",
                                        "not a list", "not four numbers", "widgetcap",
                                        "not true or false", "<loc>"]):
            self.assertIn(part, message)

    def test_a_name_with_nul_is_no_other_file(self):
        path = self.lines({"id": 1, "image": str(PHOTO) + "\0.jpg"})
        self.assertIn("NUL", self.run_batch(1, path)[0]["error"]["message"])

    def test_the_input_is_not_overwritten(self):
        path = self.lines({"image": str(PHOTO), "max_tokens": 1})
        link = self.folder / "link.jsonl"
        link.symlink_to(path)
        before = path.read_bytes()
        for output in (path, link, self.folder / "." / path.name):
            self.usage("batch", path, "-o", output, says="the same file")
        self.assertEqual(path.read_bytes(), before)

    def test_stream_changes_nothing(self):
        path = self.lines(*({"id": i, "image": str(PHOTO), "max_tokens": 2} for i in range(3)))
        whole, streamed = self.ok("batch", path).lines(), self.ok("batch", path, "--stream").lines()
        self.assertEqual([w["text"] for w in whole], [s["text"] for s in streamed])

    def test_failures_are_counted_on_stderr(self):
        done = pali("batch", "-", stdin=b"{\n")
        self.assertEqual(done.status, 1)
        self.assertIn("pali: error: 1 of 1 lines failed", done.err)

    def test_order_is_kept_over_many_lines(self):
        path = self.lines(*({"id": i, "image": str(PHOTO), "max_tokens": 1 + i % 7}
                            for i in range(40)))
        found = self.run_batch(0, path)
        self.assertEqual([f["id"] for f in found], list(range(40)))
        for i, line in enumerate(found):
            self.assertEqual(len(line["tokens"]), 1 + i % 7)

    def test_paths_are_relative_to_the_file_or_the_root(self):
        (self.folder / "sub").mkdir()
        (self.folder / "sub" / "a b.png").write_bytes(PHOTO.read_bytes())
        path = self.folder / "sub" / "in.jsonl"
        path.write_text('{"image": "a b.png", "max_tokens": 2}\n')
        line = self.ok("batch", path).json()
        self.assertEqual(line["image"], "a b.png")
        other = self.lines({"image": "a b.png", "max_tokens": 2})
        self.assertEqual(pali("batch", other).status, 1)
        self.ok("batch", other, "--image-root", self.folder / "sub")
        self.ok("batch", "-", cwd=self.folder / "sub", stdin=path.read_bytes())

    def test_defaults_come_from_the_command_line(self):
        path = self.lines({"image": str(PHOTO)}, {"image": str(PHOTO), "max_tokens": 2})
        found = self.run_batch(0, path, "-n", "5")
        self.assertEqual([len(f["tokens"]) for f in found], [5, 2])

    def test_blank_lines_and_a_missing_last_line_break(self):
        path = self.folder / "in.jsonl"
        line = json.dumps({"image": str(PHOTO), "max_tokens": 2})
        path.write_text(f"\n{line}\r\n   \n{line}")
        self.assertEqual(len(self.run_batch(0, path)), 2)

    def test_unknown_fields_are_one_warning_each(self):
        path = self.lines(*({"image": str(PHOTO), "max_tokens": 1, "max_token": 9}
                            for _ in range(3)))
        done = self.ok("batch", path)
        self.assertEqual(done.err.count("pali: warning: "), 1)
        self.assertIn("max_token", done.err)
        self.assertEqual(self.ok("batch", path, "-q").err, "")

    def test_a_pipe_is_answered_line_by_line(self):
        process = subprocess.Popen([harness.PALI, "batch", "-"], stdin=subprocess.PIPE,
                                   stdout=subprocess.PIPE, env=harness.environment("pali3"))
        line = json.dumps({"id": 1, "image": str(PHOTO), "max_tokens": 2}).encode() + b"\n"
        for _ in range(3):
            process.stdin.write(line)
            process.stdin.flush()
            self.assertEqual(json.loads(process.stdout.readline())["id"], 1)
        process.stdin.close()
        self.assertEqual(process.wait(60), 0)
        process.stdout.close()

    def test_an_input_that_cannot_be_read_is_no_end(self):
        self.fails(1, "batch", "/proc/self/mem", "-o", self.folder / "out.jsonl", says="cannot be read")
        self.assertEqual(self.files(), [])

    def test_missing_input_leaves_no_output(self):
        self.fails(1, "batch", self.folder / "no.jsonl", "-o", self.folder / "out.jsonl",
                   says="no.jsonl")
        self.fails(1, "batch", self.folder, "-o", self.folder / "out.jsonl", says="folder")
        self.assertEqual(self.files(), [])

    def test_memory_in_vain_is_the_failure_of_its_line(self):
        if harness.sanitized():
            self.skipTest("its address space cannot be limited")
        large = self.folder / "large.pgm"
        with large.open("wb") as file:
            file.write(b"P5\n13000 13000\n255\n")
            file.truncate(file.tell() + 13000 * 13000)
        path = self.lines({"image": str(PHOTO), "max_tokens": 2}, {"image": str(large)},
                          {"image": str(PHOTO), "max_tokens": 2})
        limit = 600 << 20
        done = subprocess.run([harness.PALI, "batch", path, "-t", "1"], capture_output=True, text=True, timeout=60,
                              env=harness.environment("pali3"),
                              preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)))
        answers = [json.loads(line) for line in done.stdout.splitlines()]
        self.assertEqual(["error" in a for a in answers], [False, True, False], done.stderr)
        self.assertEqual(answers[1]["error"]["code"], "out_of_memory")
        self.assertEqual(done.returncode, 1)
