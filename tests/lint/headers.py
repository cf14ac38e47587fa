"""Fails on a header of include/pali/ or src/ that does not compile alone. What some source of src/
includes before anything else does already, or the library would not have been built; the others
are compiled here, each as the first source of its folder is. Left out: what only the ISA sources
include, in their order (*-inl.hpp, simd_*.hpp).

headers.py BUILD_FOLDER   (of its compile_commands.json); exit status 77 (skipped) without one
"""
import concurrent.futures
import json
import os
import pathlib
import re
import shlex
import subprocess
import sys

SKIPPED = 77  # SKIP_RETURN_CODE in CMakeLists.txt
ROOT = pathlib.Path(__file__).resolve().parents[2]


def first_include(source):
    match = re.search(r'^\s*#\s*include\s+[<"]([^>"]+)', source.read_text("utf-8"), re.MULTILINE)
    return match[1] if match else None


def headers():
    """As they are included, and the folder of src/ whose flags they are compiled with."""
    for path in sorted((ROOT / "include").rglob("*.hpp")):
        yield str(path.relative_to(ROOT / "include")), "engine"
    for path in sorted((ROOT / "src").rglob("*.hpp")):
        if not (path.name.endswith("-inl.hpp") or path.name.startswith("simd_")):
            name = path.relative_to(ROOT / "src")
            yield str(name), name.parts[0]


def compilers(build):
    """Folder of src/ -> the command for its code, without ISA flags, source and result."""
    commands = {}
    for entry in json.loads((build / "compile_commands.json").read_text("utf-8")):
        source = pathlib.Path(entry["file"]).resolve()
        if not source.is_relative_to(ROOT / "src") or source.name.startswith(("avx", "amx")):
            continue
        words = shlex.split(entry["command"])
        words = words[:words.index("-o")]
        folder = source.relative_to(ROOT / "src").parts[0]
        commands.setdefault(folder, words + ["-fsyntax-only", "-x", "c++", "-"])
    return commands


def main():
    build = pathlib.Path(sys.argv[1])
    if not (build / "compile_commands.json").exists():
        print("headers: this generator writes no compile_commands.json")
        return SKIPPED
    proven = {first_include(source) for source in (ROOT / "src").rglob("*.cpp")}
    commands = compilers(build)
    alone = [(name, folder) for name, folder in headers() if name not in proven]

    def compile_alone(header):
        name, folder = header
        result = subprocess.run(commands[folder], input=f'#include "{name}"\n', cwd=build,
                                capture_output=True, text=True)
        return result.stderr if result.returncode else None

    with concurrent.futures.ThreadPoolExecutor(min(2, os.cpu_count())) as pool:
        errors = list(pool.map(compile_alone, alone))
    broken = [name for (name, _), error in zip(alone, errors) if error]
    for name, error in zip((name for name, _ in alone), errors):
        if error:
            print(f"{name} does not compile alone:\n{error}")
    print(f"headers: {len(broken)} of {len(alone)} do not compile alone")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
