"""The files that EAGLE's evaluation scripts (RuoyuChen10/EAGLE) read, for a map by any of our methods.

The scripts read two kinds: of EAGLE's own search, whose regions stand in order (`dexar_fast.methods.eagle.files` writes
and reads those), and of a baseline, whose npy is one map and whose curves have 64 equal steps of pixels. These are of
the second kind, so that every method stands on one schedule. The pointing game wants "interpretation_results" in the
folder's path.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from dexar_fast.errors import InputError
from dexar_fast.evaluation.curves import insertion_deletion
from dexar_fast.explainer import Explainer
from dexar_fast.explanation import Explanation
from dexar_fast.methods.eagle.files import put

TURNED = ("IGOS_PP", "TAM")  # the scripts take a map under such a path for one whose low values matter


def write(
    explainer: Explainer,
    explanation: Explanation,
    folder: Any,
    name: str,
    *,
    details: Mapping[str, Any] | None = None,
    inputs: Mapping[str, Any] | None = None,
) -> None:
    """Writes json/NAME.json and npy/NAME.npy, each whole or not at all; it takes 128 forwards, in batches.

    The json holds insertion_score, deletion_score and region_area [64], insertion_word_score and deletion_word_score
    [64, T], words and their ids; the npy the map of the answer, float32 [height, width] in [0, 1].

    Args:
        explainer: that made the explanation.
        name: of the picture, without its ending.
        details: plain JSON for further entries: location or segmentation for the pointing game, a label.
        inputs: those of `explain_inputs`, if it made the explanation.
    Raises:
        InputError: several pictures, a path that turns the scripts' sign, a name with a separator, details that are no
            JSON; else as `Explainer.check`. FileError: a folder or file that cannot be written.
    """
    if len(explanation.images) != 1:
        raise InputError(f"EAGLE's files are of one picture, and this explanation has {len(explanation.images)}")
    if any(each in str(folder) for each in TURNED):
        raise InputError(f"EAGLE's scripts turn the sign of maps under {' or '.join(TURNED)}: name {folder} otherwise")
    heat = explanation.heatmap(resolution="image")
    found = insertion_deletion(explainer, explanation, inputs=inputs)
    insertion, deletion = (np.array(curve[1:]) for curve in (found.insertion, found.deletion))
    ids = explanation.token_ids.tolist()
    document = {
        "insertion_score": insertion.mean(1).tolist(),
        "deletion_score": deletion.mean(1).tolist(),
        "region_area": found.shares[1:],
        "insertion_word_score": insertion.tolist(),
        "deletion_word_score": deletion.tolist(),
        "selected_interpretation_token_id": [*range(len(ids))],
        "selected_interpretation_token_word_id": ids,
        "words": list(explanation.tokens),
    }
    put(folder, name, document, heat, details)
