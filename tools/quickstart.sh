#!/usr/bin/env bash
# From a fresh clone to an answer: installs what is missing, builds the command line, and asks the
# built-in model about a picture. Usage: tools/quickstart.sh [IMAGE]
set -euo pipefail
cd "$(dirname "$0")/.."
image=${1:-models/pali-mini/examples/three-things.png}

tools/setup.sh
cmake -S . -B build/quick -G Ninja -DCMAKE_BUILD_TYPE=Release -DPALI_BUILD_TESTS=OFF >/dev/null
cmake --build build/quick --target pali_cli

echo >&2
echo "\$ build/quick/tools/pali caption $image" >&2
build/quick/tools/pali caption "$image"
