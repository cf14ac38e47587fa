#!/usr/bin/env bash
# From a fresh clone to an answer: installs what is missing, builds the command line, and asks the
# built-in model about two pictures, or about yours. Usage: tools/quickstart.sh [IMAGE]
set -euo pipefail
cd "$(dirname "$0")/.."

tools/setup.sh
cmake -S . -B build/quick -G Ninja -DCMAKE_BUILD_TYPE=Release -DPALI_BUILD_TESTS=OFF >/dev/null
cmake --build build/quick --target pali_cli

examples=models/pali-mini/examples
ask() {
  printf '\n$ build/quick/tools/pali' >&2
  for word; do
    case $word in *' '*) printf " '%s'" "$word" ;; *) printf ' %s' "$word" ;; esac
  done >&2
  echo >&2
  build/quick/tools/pali "$@"
}
ask caption "${1:-$examples/three-things.png}"
[ $# -gt 0 ] || ask vqa "$examples/garment.png" "what garment is this?"
