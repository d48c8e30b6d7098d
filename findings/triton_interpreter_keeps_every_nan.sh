#!/usr/bin/env bash
# Triton: in its interpreter (TRITON_INTERPRET=1) tl.maximum and tl.minimum give NaN as soon as one side is NaN. Compiled,
# they give the number, unless propagate_nan asks for NaN: the PTX has max.f32 and min.f32, and max.NaN.f32 only then. So a
# kernel that forgets propagate_nan passes every interpreted test and loses NaN on a GPU. tl.max along an axis loses it
# in both.
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
def plain(x_ptr, y_ptr):
    offsets = tl.arange(0, 4)
    x = tl.load(x_ptr + offsets)
    tl.store(y_ptr + offsets, tl.maximum(x, 0.0))
    tl.store(y_ptr + 4 + offsets, tl.minimum(x, 0.0))
    tl.store(y_ptr + 8, tl.max(x, axis=0))


@triton.jit
def asked(x_ptr, y_ptr):
    offsets = tl.arange(0, 4)
    x = tl.load(x_ptr + offsets)
    tl.store(y_ptr + offsets, tl.maximum(x, 0.0, propagate_nan=tl.PropagateNan.ALL))
PY
cat > "$folder/interpreted.py" <<'PY'
import torch
from kernels import plain

y = torch.zeros(9)
plain[(1,)](torch.tensor([float("nan"), 1.0, -1.0, 2.0]), y)
print("interpreted:", y.tolist())
PY
cat > "$folder/compiled.py" <<'PY'
import re

import triton
from kernels import asked, plain
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

for kernel in plain, asked:
    source = ASTSource(kernel, signature={"x_ptr": "*fp32", "y_ptr": "*fp32"})
    ptx = triton.compile(source, target=GPUTarget("cuda", 90, 32)).asm["ptx"]
    print(kernel.__name__, "compiled:", sorted(set(re.findall(r"(?:max|min)\S*f32", ptx))))
PY
{
  TRITON_INTERPRET=1 "$folder/venv/bin/python" "$folder/interpreted.py"
  TRITON_CACHE_DIR="$folder/cache" "$folder/venv/bin/python" "$folder/compiled.py"
} | tee "$folder/seen"
diff "$folder/seen" - <<'SEEN'
interpreted: [nan, 1.0, 0.0, 2.0, nan, 0.0, -1.0, 0.0, 2.0]
plain compiled: ['max.f32', 'min.f32']
asked compiled: ['max.NaN.f32']
SEEN
