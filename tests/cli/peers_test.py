"""tools/bench/peers.py: what it asks the program for, and what its table says. No time is asserted."""
import json
import pathlib
import subprocess
import sys

from harness import ROOT, Case

BENCH = ROOT / "tools" / "bench"
sys.path.insert(0, str(BENCH))
import peers  # noqa: E402


def entry(engine, times, dtype="f32", **more):
    return {"kind": "matmul", "work": "1x2x3", "dtype": dtype, "engine": engine, "rounds_ms": times,
            **more}


class Peers(Case):
    def peers(self, program, *arguments):
        """With no peers, whatever is installed here."""
        return subprocess.run([sys.executable, BENCH / "peers.py", "--pali", program, "--engine", "none",
                               *map(str, arguments)], capture_output=True, text=True, timeout=240)

    def program(self, text):
        path = self.folder / "pali"
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
        return path

    def test_ratios_are_of_medians_and_say_who_is_ahead(self):
        text = peers.table({"a": entry("pali auto", [2, 100, 1], shares=[0.5, 0.1, 0.9]),
                            "b": entry("torch", [3, 3, 4]),
                            "c": entry("pali native", [1]), "d": entry("openvino", [], skipped="no module"),
                            "e": entry("torch", [9], dtype="bf16")})
        self.assertIn("| matmul 1x2x3 | f32 | 2 [1-100] | 50 % | torch 3 [3-4] (1.50), pali native 1 (0.50) |\n", text)
        self.assertNotIn("bf16", text)  # nothing of ours to stand beside
        self.assertIn("\nLeft out: openvino: no module.\n", text)

    def test_rounds_add_up_in_one_file(self):
        row = {"name": "encode", "backend": "auto", "median_ms": 4, "share": 0.25}
        fake = self.program(f"echo \"$@\" >> {self.folder}/asked; echo '{json.dumps([row, {}])}'")
        report = self.folder / "report.json"
        for _ in range(2):
            done = self.peers(fake, "--only", "language encode bf16", "--rounds", "2", "-t", "3", "-o", report)
            self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("3 threads", done.stdout.splitlines()[0])
        self.assertIn("| language encode | bf16 | 4 [4-4] | 25 % | - |", done.stdout)
        results = json.loads(report.read_text())["results"]
        self.assertEqual([r["rounds_ms"] for r in results.values()], [[4] * 4])
        asked = (self.folder / "asked").read_text().splitlines()
        self.assertEqual(asked, ["bench encode --config ul2-xl --prompt-tokens 272 --tokens 8 --runs 3 "
                                 "--dtype bf16 -t 3 --json -q"] * 4)
        done = self.peers(fake, "--only", "language encode bf16", "-t", "2", "-o", report)
        self.assertEqual((done.returncode, done.stdout), (1, ""))
        self.assertEqual(done.stderr, f"{report} was measured with other threads; name another file\n")

    def test_a_round_is_the_median_of_its_runs(self):
        results = {}
        for times, share in (([1, 2, 9], 0.5), ([5], 0.6)):
            peers.add(results, "matmul", "1x2x3", "f32", "torch", {"times_ms": times, "share": share})
        self.assertEqual(list(results.values()), [entry("torch", [2, 5], shares=[0.5, 0.6])])

    def test_attention_says_what_ours_computed_in(self):
        row = {"name": "attention", "dtype": "f32", "backend": "native", "median_ms": 4, "share": 0.25}
        fake = self.program(f"echo \"$@\" >> {self.folder}/asked; echo '{json.dumps([row, {}])}'")
        done = self.peers(fake, "--only", "attention", "--quick")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("| attention 256x16x104 | f32 | 4 [4-4] | 25 % | - |", done.stdout)
        self.assertIn("| attention 256x16x104 | bf16 | 4 [4-4] in f32 | 25 % | - |", done.stdout)
        asked = (self.folder / "asked").read_text().splitlines()
        self.assertEqual(asked, [f"bench attention --shape 256x16x104 --runs 3 --dtype {dtype} -t 2 --json -q"
                                 for dtype in ("f32", "bf16") for _ in range(3)])

    def test_a_failure_of_ours_ends_it(self):
        done = self.peers(self.program("echo 'pali: error: none such; try another' >&2; exit 1"), "--only", "greedy")
        self.assertEqual((done.returncode, done.stdout), (1, ""))
        self.assertIn("pali: error: none such", done.stderr)
