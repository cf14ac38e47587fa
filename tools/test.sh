#!/usr/bin/env bash
# Installs what is missing, builds, and runs every test.
# Usage: tools/test.sh          one Release build and its tests
#        tools/test.sh --full   also format, sanitizers, and the count of tests: what CI runs
set -euo pipefail
cd "$(dirname "$0")/.."
full=0 strict=()
[ "${1:-}" = --full ] && full=1 strict=(--strict)

# Only the version that .clang-format names lays the sources out as they are.
check_format() {
  local version formatter found
  version=$(sed -n 's/^# clang-format \([0-9]*\).*/\1/p' .clang-format)
  formatter=$(command -v "clang-format-$version" || command -v clang-format)
  found=$("$formatter" --version)
  if [[ $found == *"version $version."* ]]; then
    git ls-files '*.cpp' '*.hpp' | xargs "$formatter" --dry-run -Werror
  else
    echo "format: not checked; .clang-format is for version $version, here is: $found" >&2
  fi
}

if [ $full = 1 ]; then
  tools/setup.sh clang-format
  check_format
else
  tools/setup.sh
fi

# An emulator for kernel tiers that this CPU lacks (tests/README.md): the one that is given, else one
# that lies beside the clone. No clone brings one; without it the tests of those tiers are skipped.
emulator=${PALI_ISA_EMULATOR:-}
if [ -z "$emulator" ] && [ -x ../shared/avx512/avx512-run ] && ! grep -qw avx512_vnni /proc/cpuinfo; then
  emulator="$(cd .. && pwd)/shared/avx512/avx512-run --timeout 3000"
fi

build_and_test() {  # PRESET CTEST_ARGUMENTS... [-- TARGETS...]; CMake takes "${options[@]}"
  local preset=$1 selection=() targets=()
  shift
  while [ $# -gt 0 ] && [ "$1" != -- ]; do selection+=("$1"); shift; done
  [ $# -gt 0 ] && { shift; targets=(--target "$@"); }
  cmake --preset "$preset" -DPALI_ISA_EMULATOR="$emulator" "${options[@]}" >/dev/null
  cmake --build --preset "$preset" "${targets[@]}"
  ctest --preset "$preset" --output-on-failure "${selection[@]}"
}

options=()
build_and_test release

count=$(ctest --preset release -N | sed -n 's/^Total Tests: //p')
least=$(cat tests/least_count.txt)
echo "tests: $count in the Release build, at least $least expected"
if [ "$count" -lt "$least" ]; then
  echo "tests: fewer than tests/least_count.txt says; find out which are missing" >&2
  exit 1
fi
# A machine without AVX-512 has still passed its tests; CI must not lose a tier unnoticed.
python3 tests/tiers.py "${strict[@]}" build/release/tools/pali "$emulator"

if [ $full = 1 ]; then
  # Kernels take minutes each to compile with sanitizers, and only those of this CPU would run.
  options=(-DPALI_KERNEL_TIERS="$(build/release/tools/pali doctor --json | python3 -c '
import json, sys
print(";".join(t["name"] for t in json.load(sys.stdin)["tiers"] if t["available"] and t["name"] != "scalar"))')")
  build_and_test asan -LE slow
  build_and_test tsan -R '^(exec|matmul|ops|engine)_test\.' -- exec_test matmul_test ops_test engine_test
fi
