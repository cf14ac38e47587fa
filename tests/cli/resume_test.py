"""batch --resume and --shard: long runs in parts."""
import fcntl
import json
import signal
import subprocess
import time

import harness
from harness import Case, PHOTO, pali


def timeless(text):
    """Answers of two runs are the same but for the time that they took."""
    answers = [json.loads(line) for line in text.splitlines()]
    for answer in answers:
        answer.pop("timing", None)
    return answers


class Resume(Case):
    def setUp(self):
        super().setUp()
        self.input = self.folder / "in.jsonl"
        self.output = self.folder / "out.jsonl"

    def lines(self, count, **more):
        self.input.write_text("".join(
            json.dumps({"id": i, "image": str(PHOTO), "max_tokens": 1 + i % 5} | more) + "\n"
            for i in range(count)))

    def resume(self, status=0):
        done = pali("batch", self.input, "-o", self.output, "--resume")
        self.assertEqual(done.status, status, done.err)
        return done

    def test_begins_where_there_is_nothing(self):
        self.lines(11)
        self.resume()
        self.assertEqual(timeless(self.output.read_text()), timeless(self.ok("batch", self.input).out))
        self.assertEqual(self.files(), ["in.jsonl", "out.jsonl"])

    def test_keeps_what_is_finished_and_does_the_rest_in_order(self):
        self.lines(20)
        whole = self.ok("batch", self.input).out.splitlines(True)
        mark = lambda line: line.replace('"text"', '"kept": 1, "text"', 1)
        failed = '{"id":3,"error":{"code":"x","message":"y"}}\n'
        # Out of order, with a failure, and cut in the middle of a line.
        self.output.write_text(mark(whole[5]) + failed + mark(whole[1]) + whole[7][:40])
        self.resume()
        expected = list(whole)
        for i in (1, 5):
            expected[i] = mark(whole[i])
        found = self.output.read_text()
        self.assertEqual(timeless(found), timeless("".join(expected)))
        before = self.output.stat().st_mtime_ns
        self.resume()
        self.assertEqual(self.output.read_text(), found)
        self.assertEqual(self.output.stat().st_mtime_ns, before)

    def test_after_a_kill(self):
        self.lines(400, task="vqa", question="why?", beams=2)
        process = subprocess.Popen(
            [harness.PALI, "batch", self.input, "-o", self.output, "--resume", "-t", "1"],
            env=harness.environment("pali3"))
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and process.poll() is None:
            if self.output.exists() and self.output.stat().st_size > 3000:
                break
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait(60)
        left = self.output.read_bytes()
        self.assertGreater(left.count(b"\n"), 2)
        self.output.write_bytes(left[:-25])  # in the middle of a line
        self.resume()
        found = [json.loads(line) for line in self.output.read_text().splitlines()]
        self.assertEqual([f["id"] for f in found], list(range(400)))
        self.assertEqual(self.files(), ["in.jsonl", "out.jsonl"])

    def test_failed_lines_are_tried_again(self):
        self.input.write_text('{"id": "a", "image": "later.png", "max_tokens": 2}\n{\n'
                              '{"image": "later.png"}\n'
                              '{"id": "b", "image": "%s", "max_tokens": 2}\n'
                              '{"id": "b", "image": "%s", "max_tokens": 2}\n' % (PHOTO, PHOTO))
        for late in (False, True):
            if late:
                (self.folder / "later.png").write_bytes(PHOTO.read_bytes())
            self.resume(1)
            found = [json.loads(line) for line in self.output.read_text().splitlines()]
            self.assertEqual(["error" in f for f in found], [not late, True, True, False, True])
            self.assertIn("no id", found[2]["error"]["message"])
            self.assertIn("earlier line's", found[4]["error"]["message"])

    def test_another_file_is_left_alone(self):
        self.lines(2)
        for text, says in [("shopping: milk\neggs\n", "line 1 is no answer"), ("[1]\n", "line 1"),
                           ('{"id": 1, "text": "a"}\n{"text": "x"}\n', "line 2 is no answer"),
                           ('{"id": null, "text": "x"}\n', "line 1 has no id"),
                           ('{"id": 1, "image": "a.png"}\n', "line 1 is no answer"),
                           ('{"id": 1, "text": "x"}\n{"id": 1, "text": "y"}\n', "earlier one's"),
                           ("a line without an end", "line 1 is no answer"),
                           ('{"model_type": "t5"}', "line 1 is no answer")]:
            self.output.write_text(text)
            self.fails(1, "batch", self.input, "-o", self.output, "--resume", says=says)
            self.assertEqual(self.output.read_text(), text)
        self.fails(1, "batch", self.input, "-o", "/dev/null", "--resume", says="no file")
        self.fails(1, "batch", self.input, "-o", self.output, "--resume", "-m",
                   self.folder / "none", says="none")

    def test_a_last_answer_without_its_line_break_is_whole(self):
        self.lines(2)
        self.output.write_text('{"id":0,"text":"kept"}')
        self.resume()
        found = [json.loads(line) for line in self.output.read_text().splitlines()]
        self.assertEqual([f["id"] for f in found], [0, 1])
        self.assertEqual(found[0]["text"], "kept")

    def test_failures_of_other_lines_stay(self):
        self.lines(3)
        failed = [{"id": i, "error": {"code": "x", "message": "y"}} for i in (1, 9)]
        self.output.write_text("".join(json.dumps(f) + "\n" for f in failed))
        self.resume()
        found = [json.loads(line) for line in self.output.read_text().splitlines()]
        self.assertEqual([(f["id"], "error" in f) for f in found],
                         [(0, False), (1, False), (2, False), (9, True)])

    def test_what_is_finished_stays_so_when_its_line_is_spoilt(self):
        self.lines(2)
        self.resume()
        before = self.output.read_text()
        self.lines(2, max_tokens=0)
        self.resume()
        self.assertEqual(self.output.read_text(), before)

    def test_one_run_at_a_time(self):
        self.lines(2)
        self.output.write_text('{"id":0,"text":"x"}\n')
        with self.output.open("a") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            self.fails(1, "batch", self.input, "-o", self.output, "--resume", says="another run")
        self.assertEqual(self.output.read_text(), '{"id":0,"text":"x"}\n')

    def test_answers_to_other_lines_stay_behind(self):
        self.lines(2)
        others = ["old", 7, [3], "older"]
        self.output.write_text("".join(json.dumps({"id": o, "text": "x"}) + "\n" for o in others))
        self.resume()
        found = [json.loads(line)["id"] for line in self.output.read_text().splitlines()]
        self.assertEqual(found, [0, 1] + others)

    def test_shards_are_the_whole(self):
        self.lines(11)
        self.input.write_text("\n" + self.input.read_text())
        whole = timeless(self.ok("batch", self.input).out)
        parts = [timeless(self.ok("batch", self.input, "--shard", f"{i}/3").out)
                 for i in range(3)]
        self.assertEqual([parts[i % 3][i // 3] for i in range(11)], whole)
        self.assertEqual([len(part) for part in parts], [4, 4, 3])
