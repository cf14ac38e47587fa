"""Fails where the shared library shows more than include/pali/ declares with PALI_API, or less.
Left alone: the copies of the standard library's templates that its headers make visible.

exports.py NM LIBRARY
"""
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
DECLARED = re.compile(r"(?:class|struct) PALI_API (\w+)|^PALI_API [^;(]*?\b(\w+)\(", re.MULTILINE)
OURS = re.compile(r"(?:(?:typeinfo|typeinfo name|vtable|guard variable) for )?pali::(\w+)")
STANDARD = re.compile(r"(?:[^(]* )?(?:std|__gnu_cxx)::")


def declared():
    for path in sorted((ROOT / "include").rglob("*.hpp")):
        for match in DECLARED.finditer(path.read_text("utf-8")):
            yield match[1] or match[2]


def main():
    nm, library = sys.argv[1:]
    text = subprocess.run([nm, "-D", "-C", "--defined-only", library], check=True,
                          capture_output=True, text=True).stdout
    public, seen, problems = set(declared()), set(), []
    for line in text.splitlines():
        kind, name = re.match(r"\S+ (\w) (.*)$", line).groups()
        if match := OURS.match(name):
            seen.add(match[1])
            if match[1] not in public:
                problems.append(f"exported, and no PALI_API declares it: {name}")
        elif kind not in "WVu" or not STANDARD.match(name):
            problems.append(f"exported, and not ours to show: {kind} {name}")
    problems += [f"declared with PALI_API, and not exported: {name}" for name in public - seen]
    print("\n".join(sorted(problems)) or f"exports: {len(seen)} names, all declared")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
