#!/usr/bin/env bash
# Runs every libFuzzer target for SECONDS (60) from seeds cut out of tests/data; a finding fails.
# Usage: tests/fuzz/run.sh [SECONDS] [TARGET...]
set -euo pipefail
cd "$(dirname "$0")/../.."
seconds=${1:-60}
shift || true
build=build/fuzz
cmake --preset fuzz >/dev/null
cmake --build --preset fuzz
python3 tests/fuzz/make_seeds.py "$build/seeds"
targets=("$@")
[ ${#targets[@]} -gt 0 ] || targets=(npy npz zip pickle torch_file safetensors config big_vision)
for target in "${targets[@]}"; do
  mkdir -p "$build/corpus/$target"
  echo "fuzz: $target, $seconds s" >&2
  nice -n 15 "$build/tests/fuzz/targets/fuzz_$target" -max_total_time="$seconds" -rss_limit_mb=2048 \
    -malloc_limit_mb=512 -timeout=10 -max_len=65536 -print_final_stats=1 \
    -artifact_prefix="$build/finding-$target-" "$build/corpus/$target" "$build/seeds/$target" \
    2>"$build/$target.log" || { tail -40 "$build/$target.log"; exit 1; }
  grep -E 'stat::(number_of_executed_units|peak_rss_mb)' "$build/$target.log" >&2
done
