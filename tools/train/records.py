"""What a stage leaves in its folder, and an interruption of any kind harms none of it: checkpoint, losses.csv."""

import csv
import os
from contextlib import contextmanager

COLUMNS = ["stage", "step", "seconds", "rate", "loss", "value"]


@contextmanager
def replaced(path, mode="wb", **how):
    """A file to write beside `path`, which takes its place once all of it is on the disk."""
    part = path.with_name(path.name + ".part")
    with open(part, mode, **how) as f:
        yield f
        f.flush()
        os.fsync(f.fileno())  # a rename may reach the disk before what was written
    part.rename(path)


def rows(path):
    """Rows of a losses.csv, with a header or without; lines that a kill cut short are left out."""
    with open(path, newline="") as f:
        found = list(csv.reader(line for line in f if line.endswith("\n")))
    return [row for row in found if len(row) == len(COLUMNS) and row[1].isdigit()]


def resumed(path, step):
    """losses.csv open for more rows, without those after `step`, where its stage goes on: they come again."""
    kept = [row for row in rows(path) if int(row[1]) <= step] if path.exists() else []
    with replaced(path, "w", newline="") as f:
        csv.writer(f).writerows([COLUMNS, *kept])
    return open(path, "a", newline="")
