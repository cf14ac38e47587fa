"""Fails on an #include that runs up the layers, or that only one file may have; a public header that
includes more than its like and the standard library; a source file that CMake does not list; a
library that prints or exits; a file that is too long. Whether headers compile alone: headers.py."""
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
# What each folder under src/ may include, besides itself and the public headers.
ALLOWED = {
    "base": set(),
    "kernels": {"base"},
    "exec": {"base", "kernels"},
    "matmul": {"base", "kernels", "exec"},
    "ops": {"base", "kernels", "exec", "matmul"},
    "io": {"base"},
    "image": {"base"},
    "text": {"base", "io"},
    "model": {"base", "kernels", "exec", "matmul", "ops", "io", "image", "text"},
    "generate": {"base", "exec", "model"},
    "tasks": {"base", "io", "image", "model"},
    "engine": {"base", "kernels", "exec", "matmul", "io", "image", "text", "model", "generate",
               "tasks"},
}
# Of model/, generation sees the decoder seam only.
GENERATE_SEES = {"model/decoder.hpp", "model/lm_head.hpp"}
# Files that alone may know a library.
ONE_FILE = {
    "sentencepiece": {"src/text/tokenizer.cpp"},
    "stb_image.h": {"src/image/decode.cpp"},
    "stb_image_write.h": {"src/image/encode.cpp"},
    "oneapi/dnnl": {"src/matmul/onednn.cpp"},
    "zlib.h": {"src/io/zip.cpp"},
}
MAX_LINES = 600


def includes(path):
    for line in path.read_text(encoding="utf-8").splitlines():
        match = re.match(r'\s*#\s*include\s+([<"])([^>"]+)[>"]', line)
        if match:
            yield match.group(1), match.group(2)


def check_layer_arrows(problems):
    for path in sorted((ROOT / "src").rglob("*.[ch]pp")):
        name = str(path.relative_to(ROOT))
        layer = name.split("/")[1]
        for bracket, target in includes(path):
            for library, owners in ONE_FILE.items():
                if library in target and name not in owners:
                    problems.append(f"{name}: includes {target}; only {sorted(owners)} may")
            if bracket == "<":
                continue
            folder = target.split("/")[0]
            if folder == "pali":
                continue
            if folder not in ALLOWED:
                if not (path.parent / target).exists():
                    problems.append(f"{name}: unknown include {target}")
                continue
            if folder != layer and folder not in ALLOWED[layer]:
                problems.append(f"{name}: {target} runs up the layers")
            if layer == "generate" and folder == "model" and target not in GENERATE_SEES:
                problems.append(f"{name}: generation sees {sorted(GENERATE_SEES)} only")


def check_public_headers(problems):
    for path in sorted((ROOT / "include").rglob("*.hpp")):
        for bracket, target in includes(path):
            if bracket == '"' and not target.startswith("pali/"):
                problems.append(f"{path.name}: public headers include {target}")
            if bracket == "<" and "/" in target:
                problems.append(f"{path.name}: public headers use the standard library only: {target}")


def check_sources_listed(problems):
    for folder in ("src", "tests/unit", "tests/parity"):
        for path in sorted((ROOT / folder).rglob("*.cpp")):
            listed = False
            for parent in path.parents:
                cmake = parent / "CMakeLists.txt"
                if cmake.exists() and re.search(rf"\b{path.stem}\b", cmake.read_text("utf-8")):
                    listed = True
                    break
                if parent == ROOT:
                    break
            if not listed:
                problems.append(f"{path.relative_to(ROOT)}: no CMakeLists.txt names it")


def check_library_manners(problems):
    banned = re.compile(r"\b(std::cout|std::cerr|printf|fprintf|puts|abort|exit|quick_exit)\s*[(<]")
    for path in sorted((ROOT / "src").rglob("*.[ch]pp")):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            code = line.split("//")[0]
            if banned.search(code) and "snprintf" not in code:
                problems.append(f"{path.relative_to(ROOT)}:{number}: the library never prints or exits")


def check_lengths(problems):
    for folder in ("src", "include", "tools", "tests"):
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix not in {".cpp", ".hpp"}:
                continue
            count = len(path.read_text(encoding="utf-8").splitlines())
            if count > MAX_LINES:
                problems.append(f"{path.relative_to(ROOT)}: {count} lines, at most {MAX_LINES}")


def main():
    problems = []
    for check in (check_layer_arrows, check_public_headers, check_sources_listed,
                  check_library_manners, check_lengths):
        check(problems)
    print("\n".join(problems) or "layers: clean")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
