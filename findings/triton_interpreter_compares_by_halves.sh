#!/usr/bin/env bash
# Triton: in its interpreter (TRITON_INTERPRET=1) a chained comparison of blocks, `low <= x < high`, is its last comparison
# alone, without a word: a block counts as true, so Python's `and` gives its right side. Compiled, the same line is refused.
# A mask that is wrong in one place out of two so passes for a mask while a kernel is written without a GPU.
# Seen with triton 3.7.1 on Linux, CPython 3.11, torch 2.13.0, without a GPU; the outcomes stand at the end of this file.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 triton==3.7.1 numpy==2.4.6
cat > "$folder/kernels.py" <<'PY'
import triton
import triton.language as tl


@triton.jit
def between(y_ptr):
    x = tl.arange(0, 8)
    tl.store(y_ptr + x, (2 <= x < 5).to(tl.int32))
PY
cat > "$folder/interpreted.py" <<'PY'
import torch
from kernels import between

y = torch.full((8,), -1, dtype=torch.int32)
between[(1,)](y)
print("interpreted:", y.tolist())
PY
cat > "$folder/compiled.py" <<'PY'
import triton
from kernels import between
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

try:
    triton.compile(ASTSource(between, signature={"y_ptr": "*i32"}), target=GPUTarget("cuda", 90, 32))
    print("compiled: ok")
except Exception as error:
    print("compiled:", type(error).__name__, str(error).strip().splitlines()[-1])
PY
{
  TRITON_INTERPRET=1 "$folder/venv/bin/python" "$folder/interpreted.py"
  TRITON_CACHE_DIR="$folder/cache" "$folder/venv/bin/python" "$folder/compiled.py"
} | tee "$folder/seen"
diff "$folder/seen" - <<'SEEN'
interpreted: [1, 1, 1, 1, 1, 0, 0, 0]
compiled: UnsupportedLanguageConstruct simultaneous multiple comparison is not supported
SEEN
