#!/usr/bin/env bash
# OpenCV 4.10.0 and 5.0.0, ximgproc: what createSuperpixelSLIC (SLICO, as published attribution code calls it) returns as
# superpixels are sets of pixels in many separate pieces unless enforceLabelConnectivity() is called after iterate(): of a
# picture of noise, 60 superpixels lie in more than 1,000 pieces. And their number is that of the whole squares of
# region_size that fit, 8 where 9 of equal area were meant. So a "region" of a deletion curve may be scattered over the picture.
# Seen on Linux, CPython 3.11, scipy 1.17.1; the outcomes stand at the end of this file.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat > "$folder/ask.py" <<'PY'
import cv2
import numpy as np
from scipy import ndimage

picture = np.random.default_rng(0).integers(0, 256, (336, 336, 3), np.uint8)
for meant in (9, 64):
    found = cv2.ximgproc.createSuperpixelSLIC(picture, region_size=int((336 * 336 / meant) ** 0.5), ruler=20.0)
    found.iterate(20)
    labels = found.getLabels()
    pieces = sum(ndimage.label(labels == each)[1] for each in np.unique(labels))
    print(cv2.__version__, "meant", meant, "got", len(np.unique(labels)), "in more pieces:", pieces > 10 * meant)
PY
for version in 4.10.0.84 5.0.0.93; do
  python3 -m venv --clear "$folder/venv"
  "$folder/venv/bin/pip" install --quiet --disable-pip-version-check "opencv-contrib-python-headless==$version" scipy==1.17.1
  "$folder/venv/bin/python" "$folder/ask.py" | tee -a "$folder/seen"
done
diff "$folder/seen" - <<'SEEN'
4.10.0 meant 9 got 8 in more pieces: True
4.10.0 meant 64 got 60 in more pieces: True
5.0.0 meant 9 got 8 in more pieces: True
5.0.0 meant 64 got 60 in more pieces: True
SEEN
