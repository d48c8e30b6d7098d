#!/usr/bin/env bash
# nnsight 0.7.0 and 0.8.1 put methods of their own on Python's `object` with the first trace. From then on beartype does
# not import ("unhashable type: 'instancemethod'"), nor does what imports it: interpreto 0.5.2, which is built on nnsight.
# Seen on Linux, CPython 3.11, beartype 0.22.9: "TypeError" with both.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
cat > "$folder/trace.py" <<'PY'
import nnsight
import torch

model = nnsight.NNsight(torch.nn.Sequential(torch.nn.Linear(2, 2)))
with model.trace(torch.ones(1, 2)):
    output = model.output.save()
try:
    import beartype
except TypeError:
    print("nnsight", nnsight.__version__, "beartype: TypeError")
else:
    print("nnsight", nnsight.__version__, "beartype: imported")
PY
for version in 0.7.0 0.8.1; do
  "$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 "nnsight==$version" beartype==0.22.9
  "$folder/venv/bin/python" "$folder/trace.py" 2>/dev/null | tee -a "$folder/seen"
done
diff "$folder/seen" - <<'SEEN'
nnsight 0.7.0 beartype: TypeError
nnsight 0.8.1 beartype: TypeError
SEEN
