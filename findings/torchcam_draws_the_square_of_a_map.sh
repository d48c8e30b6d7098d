#!/usr/bin/env bash
# torchcam 0.4.1 and 0.5.0: utils.overlay_mask() colours the square of the map it is given, which its page does not say: a
# place of heat 0.5 has the colour of 0.25. Of a greyscale mask of 8 bits, which its docstring asks for, the square wraps at
# 256, and what is left is the index of a colour: the hottest place, 255, is drawn as one of the coldest.
# Seen on Linux, CPython 3.11, matplotlib 3.11.2; the outcomes stand at the end of this file.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat > "$folder/ask.py" <<'PY'
from importlib.metadata import version

import numpy as np
from matplotlib import colormaps
from PIL import Image
from torchcam.utils import overlay_mask

heat = np.array([[0, 0.5, 1]], np.float32)
scale = colormaps["jet"](np.linspace(0, 1, 256), bytes=True)[:, :3].astype(int)


def shown(mask):
    """The heat of which the colour is drawn, for each place."""
    drawn = np.asarray(overlay_mask(Image.new("RGB", (3, 1)), mask, alpha=0.0)).astype(int)
    return [round(float(abs(scale - colour).sum(1).argmin()) / 255, 2) for colour in drawn[0]]


eight = Image.fromarray((255 * heat).astype(np.uint8))
print(version("torchcam"), "heat", heat[0].tolist(), "float:", shown(Image.fromarray(heat)), "8 bits:", shown(eight))
PY
for version in 0.4.1 0.5.0; do
  python3 -m venv --clear "$folder/venv"
  "$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 "torchcam==$version" matplotlib==3.11.2
  "$folder/venv/bin/python" "$folder/ask.py" | tee -a "$folder/seen"
done
diff "$folder/seen" - <<'SEEN'
0.4.1 heat [0.0, 0.5, 1.0] float: [0.0, 0.25, 1.0] 8 bits: [0.0, 0.0, 0.0]
0.5.0 heat [0.0, 0.5, 1.0] float: [0.0, 0.25, 1.0] 8 bits: [0.0, 0.0, 0.0]
SEEN
