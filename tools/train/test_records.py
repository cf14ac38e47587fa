"""losses.csv and checkpoints outlive a stage that is stopped anywhere. Run it as a script."""

import csv
import tempfile
from pathlib import Path

import plot
import records


def lines(*steps):
    return "".join(f"siglip,{step},9,1.00e-03,{loss},0.5\r\n" for step in steps for loss in ("sigmoid", "patch"))


def resume(path, step, *steps):
    """Goes on at `step` and logs `steps`, as train.py does."""
    with records.resumed(path, step) as log:
        rows = [["siglip", s, 9, "1.00e-03", loss, 0.5] for s in steps for loss in ("sigmoid", "patch")]
        csv.writer(log).writerows(rows)


def check_losses(path):
    header = ",".join(records.COLUMNS) + "\r\n"
    resume(path, 0, 50, 100)
    assert path.read_bytes().decode() == header + lines(50, 100)

    for old in (header, ""):  # with a header, or as it was written before there was one
        for cut in ("siglip,200,9,1.0", "siglip,200,9,1.00e-03,sigmoid,0.", "siglip,200,9,1.00e-03,sigmoid,0.5\r"):
            path.write_bytes((old + lines(50, 100, 150) + cut).encode())
            assert [step for step, _ in plot.read(path)["patch"]] == [50, 100, 150]
            resume(path, 120, 170, 220)
            resume(path, 190, 240)
            assert path.read_bytes().decode() == header + lines(50, 100, 170, 240)

    path.write_bytes((lines(50) + "siglip,100,9,1.0" + lines(50)).encode())  # a resume went on after half a line
    assert [step for step, _ in plot.read(path)["patch"]] == [50, 50]

    resume(path, 0, 50)  # killed before its first checkpoint
    assert path.read_bytes().decode() == header + lines(50)


def check_replaced(path):
    with records.replaced(path) as f:
        f.write(b"first")
    try:
        with records.replaced(path) as f:
            f.write(b"sec")
            raise KeyboardInterrupt
    except KeyboardInterrupt:
        pass
    assert path.read_bytes() == b"first"
    with records.replaced(path) as f:
        f.write(b"second")
    assert path.read_bytes() == b"second"


def main():
    with tempfile.TemporaryDirectory() as folder:
        check_losses(Path(folder) / "losses.csv")
        check_replaced(Path(folder) / "checkpoint.pt")
    print("each step once")


if __name__ == "__main__":
    main()
