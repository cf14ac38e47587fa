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
    return {"kind": "matmul", "work": "1x2x3", "dtype": dtype, "engine": engine, "times_ms": times,
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
        text = peers.table({"a": entry("pali auto", [2, 100, 1], share=0.5), "b": entry("torch", [3, 3, 4]),
                            "c": entry("pali native", [1]), "d": entry("openvino", [], skipped="no module"),
                            "e": entry("torch", [9], dtype="bf16")})
        self.assertIn("| matmul 1x2x3 | f32 | 2 | 50 % | torch 3 (1.50), pali native 1 (0.50) |\n", text)
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
        self.assertIn("| language encode | bf16 | 4 | 25 % | - |", done.stdout)
        results = json.loads(report.read_text())["results"]
        self.assertEqual([r["times_ms"] for r in results.values()], [[4] * 4])
        asked = (self.folder / "asked").read_text().splitlines()
        self.assertEqual(asked, ["bench encode --config ul2-xl --prompt-tokens 272 --tokens 8 --runs 3 "
                                 "--dtype bf16 -t 3 --json -q"] * 4)

    def test_a_failure_of_ours_ends_it(self):
        done = self.peers(self.program("echo 'pali: error: none such; try another' >&2; exit 1"), "--only", "greedy")
        self.assertEqual((done.returncode, done.stdout), (1, ""))
        self.assertIn("pali: error: none such", done.stderr)
