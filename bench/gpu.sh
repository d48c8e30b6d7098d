#!/usr/bin/env bash
# All that a machine with a GPU is asked for, in at most 9 minutes: bash bench/gpu.sh [--rehearse] [a step ...].
# Needs torch, triton and transformers there, and no network. Results lie under $OUT. The steps: bench/gpu/steps.py.
set -euo pipefail
cd "$(dirname "$0")/.."
export PYTHONPATH=$PWD PYTHONUNBUFFERED=1
exec "${PYTHON:-python3}" -m bench.gpu "$@"
