#!/usr/bin/env bash
# What a machine with a GPU is asked for, a step a call: bash bench/gpu.sh tests | sanitizer | bench | profile.
# Needs torch, triton and transformers there, and no network. Results lie under $OUT.
set -euo pipefail
cd "$(dirname "$0")/.."
step=${1:-}
case $step in
  tests | sanitizer | bench | profile) ;;
  *) sed -n '2,3s/^# //p' "$0" >&2; exit 2 ;;
esac
export PYTHONPATH=$PWD PYTHONUNBUFFERED=1
out=${OUT:-out/gpu}
mkdir -p "$out"
python setup.py build_ext --inplace >"$out/build.log" 2>&1 || { tail -n 20 "$out/build.log" >&2; exit 1; }
case $step in
  tests) python -m pytest -q -m gpu -p no:cacheprovider tests 2>&1 | tee "$out/tests.log" ;;
  sanitizer)
    compute-sanitizer --tool memcheck --error-exitcode 1 \
      python -m pytest -q -m gpu -p no:cacheprovider tests -k 'reference' 2>&1 | tee "$out/sanitizer.log" ;;
  bench) python -m bench --gpu --out "$out" 2>&1 | tee "$out/bench.log" ;;
  profile)
    python -c 'from dexar_fast.cli.app import main; main()' profile llava-1.5-7b --device cuda --dtype bfloat16 --tokens 128 \
      --json "$out/profile.json" --trace "$out/trace.json" --plot "$out/profile.png" 2>&1 | tee "$out/profile.log" ;;
esac
