"""What it costs the answer to hide parts of the picture in the order of a map."""

from __future__ import annotations

from functools import partial

import numpy as np

from dexar_fast.evaluation.curves import Perturbation, Revealing, insertion_deletion, perturbation
from dexar_fast.evaluation.occlusion import Agreement, agreement_with, occluded
from dexar_fast.jobs.eval.case import Case
from dexar_fast.jobs.eval.measures.base import Metric, SkippedError
from dexar_fast.metrics.hiding.revealing import areas
from dexar_fast.metrics.tokens import sensitive


def perturbation_parts(name: str, case: Case, fill: str) -> list[float]:
    return [getattr(_perturbed(case, fill), name)]


def _perturbed(case: Case, fill: str) -> Perturbation:
    run = partial(perturbation, case.explainer, case.explanation, fill=fill, seed=case.seed)
    return case.once(("perturbation", fill), run)


def revealing_parts(name: str, case: Case, fill: str) -> list[float]:
    return [getattr(_revealed(case, fill).areas, name)]


def sensitive_parts(name: str, case: Case, fill: str) -> list[float]:
    """The same over the words whose probability falls by more than .2 without the picture (EAGLE)."""
    found = _revealed(case, fill)
    insertion, deletion = np.array(found.insertion), np.array(found.deletion)
    words = sensitive(insertion[-1], insertion[0])
    if not words.any():
        raise SkippedError("no word is sensitive to the picture")
    return [getattr(areas(insertion[:, words], deletion[:, words], found.shares), name)]


def _revealed(case: Case, fill: str) -> Revealing:
    run = partial(insertion_deletion, case.explainer, case.explanation, fill=fill, seed=case.seed)
    return case.once(("revealing", fill), run)


def occlusion_parts(name: str, case: Case, fill: str) -> list[float]:
    return [getattr(_occluded(case, fill), name)]


def _occluded(case: Case, fill: str) -> Agreement:
    hide = partial(occluded, case.explainer, case.explanation, fill=fill)
    patches = case.once_for_all(("occlusion", fill), hide)
    return case.once(("occlusion", fill), lambda: agreement_with(patches, case.explanation))


METRICS = [
    Metric(
        "perturbation-positive",
        "higher",
        "Normalised perplexity as the picture goes, most important first",
        partial(perturbation_parts, "positive_area"),
        fill="blur",
    ),
    Metric(
        "perturbation-negative",
        "lower",
        "Normalised perplexity as the picture goes, least important first",
        partial(perturbation_parts, "negative_area"),
        fill="blur",
    ),
    Metric(
        "insertion",
        "higher",
        "Mean probability as the picture is shown, 64 steps",
        partial(revealing_parts, "insertion"),
        fill="black",
    ),
    Metric(
        "deletion",
        "lower",
        "Mean probability as the picture is hidden, 64 steps",
        partial(revealing_parts, "deletion"),
        fill="black",
    ),
    Metric(
        "highest", "higher", "Highest mean probability on the way", partial(revealing_parts, "highest"), fill="black"
    ),
    Metric(
        "insertion-sensitive",
        "higher",
        "Insertion of the words that need the picture",
        partial(sensitive_parts, "insertion"),
        fill="black",
    ),
    Metric(
        "deletion-sensitive",
        "lower",
        "Deletion of the words that need the picture",
        partial(sensitive_parts, "deletion"),
        fill="black",
    ),
    Metric(
        "occlusion-rank",
        "higher",
        "Rank correlation with hiding each of 6 x 6 patches alone",
        partial(occlusion_parts, "rank_correlation"),
        fill="blur",
    ),
    Metric(
        "occlusion-top",
        "higher",
        "Share of the top fifth of patches in common with hiding them",
        partial(occlusion_parts, "top_share"),
        fill="blur",
    ),
]
