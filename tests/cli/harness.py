"""Runs the real program and looks at what it did: status, stdout, stderr, files."""
import json
import os
import pathlib
import shutil
import subprocess
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
DATA = ROOT / "tests" / "data"
MODELS = DATA / "models"
IMAGES = DATA / "images"
PHOTO = IMAGES / "rgb_37x53.png"
SETTINGS = ["dtype", "compute", "preprocess"]  # that every --json of a model with images echoes
PALI = None  # path of the program, set by cli_test.py


def sanitized():
    """Sanitizers reserve terabytes of address space: such a program cannot be limited to less."""
    return b"__asan_init" in pathlib.Path(PALI).read_bytes()


class Outcome:
    def __init__(self, status, out, err):
        self.status, self.raw, self.err_raw = status, out, err
        self.out = out.decode("utf-8")  # whatever the program prints must be UTF-8
        self.err = err.decode("utf-8")

    def json(self):
        lines = self.out.splitlines()
        assert len(lines) == 1, self.out
        return json.loads(lines[0])

    def lines(self):
        return [json.loads(line) for line in self.out.splitlines()]


def environment(model):
    env = {k: v for k, v in os.environ.items() if not k.startswith("PALI_")}
    if model is not None:
        env["PALI_MODEL"] = str(MODELS / model)
    return env


def pali(*arguments, model="pali3", stdin=b"", cwd=None, timeout=240):
    done = subprocess.run([PALI, *map(str, arguments)], input=stdin, capture_output=True, cwd=cwd,
                          env=environment(model), timeout=timeout)
    return Outcome(done.returncode, done.stdout, done.stderr)


def golden(model):
    return json.loads((MODELS / model / "golden.json").read_text())


class Case(unittest.TestCase):
    maxDiff = 4000

    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="pali-cli-"))
        self.addCleanup(shutil.rmtree, self.folder, True)

    def ok(self, *arguments, **how):
        done = pali(*arguments, **how)
        self.assertEqual(done.status, 0, (arguments, done.out, done.err))
        return done

    def fails(self, status, *arguments, says=(), **how):
        """Exit status, nothing on stdout, one error line that says certain things."""
        done = pali(*arguments, **how)
        self.assertEqual(done.status, status, (arguments, done.out, done.err))
        self.assertEqual(done.out, "", arguments)
        lines = [line for line in done.err.splitlines() if not line.startswith("pali: warning: ")]
        self.assertEqual(len(lines), 1, (arguments, done.err))
        self.assertTrue(lines[0].startswith("pali: error: "), done.err)
        self.assertIn(";" if status == 1 else "ee 'pali", lines[0])
        for part in [says] if isinstance(says, str) else says:
            self.assertIn(part, lines[0])
        return done

    def usage(self, *arguments, says=(), **how):
        return self.fails(2, *arguments, says=says, **how)

    def files(self):
        return sorted(p.name for p in self.folder.iterdir())
