"""Whether a map depends on the weights and on the picture, and stays under small noise."""

from __future__ import annotations

import numpy as np
from PIL import Image

from dexar_fast.evaluation.sanity import cascade, of_other_pictures
from dexar_fast.evaluation.stability import stability
from dexar_fast.jobs.eval.case import Case
from dexar_fast.jobs.eval.measures.base import Metric, SkippedError


def weights_parts(case: Case, fill: None) -> list[float]:
    """The correlation that is left once all layers are random."""
    picture = _picture(case)
    return [cascade(case.explainer, lambda: case.again(picture), seed=case.seed).correlations[-1]]


def picture_parts(case: Case, fill: None) -> list[float]:
    picture = _picture(case)
    others = (other.convert("RGB").resize(picture.size) for other in case.others())
    other = next((each for each in others if each.tobytes() != picture.tobytes()), None)
    if other is None:
        raise SkippedError("no item has another picture")
    return [float(of_other_pictures(case.again, [picture, other])[0])]


def noise_parts(case: Case, fill: None) -> list[float]:
    return [stability(case.again, _picture(case), seed=case.seed).mean]


def _picture(case: Case) -> Image.Image:
    if len(case.explanation.images) != 1:
        raise SkippedError("the check takes one picture")
    if not np.ptp(case.explanation.sequence_map.numpy()):
        raise SkippedError("the map is blank")
    return case.explanation.images[0]


METRICS = [
    Metric("weights-random", "lower", "Rank correlation left once all layers' weights are shuffled", weights_parts),
    Metric("other-picture", "lower", "Rank correlation with the map of another picture", picture_parts),
    Metric("stability", "higher", "Rank correlation with maps under noise of 5/255; blind maps have 1", noise_parts),
]
