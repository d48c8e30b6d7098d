"""What it costs the answer to hide parts of the picture in the order of a map; and corrections of wrong answers."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from dexar_fast.data.item import Item
from dexar_fast.evaluation.curves import Perturbation, Revealing, insertion_deletion, perturbation
from dexar_fast.evaluation.occlusion import Agreement, agreement_with, occluded
from dexar_fast.jobs import stored
from dexar_fast.jobs.eval.case import Case
from dexar_fast.jobs.eval.measures.base import Metric, SkippedError
from dexar_fast.methods.eagle.hallucination import diagnose
from dexar_fast.methods.eagle.method import Eagle
from dexar_fast.metrics.correction import csr
from dexar_fast.metrics.revealing import areas
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


def region_parts(read: Callable[[float], float], case: Case, fill: str) -> list[float]:
    """The smallest removal that puts a wrong answer right, in EAGLE's order."""
    method, item = case.explainer.method, case.item
    if not isinstance(method, Eagle) or case.null is not None:
        raise SkippedError("corrections are made in the order of 'eagle' alone")
    if not item.references or item.question is None:
        raise SkippedError("a correction takes a question and its right answer")
    found = case.once("diagnosis", lambda: diagnose(case.explainer, item.image, _asked(case), _right(item), method))
    return [read(found.minimal_region)]


def _asked(case: Case) -> str:
    """The question, in the prompt of the data set if that stores one."""
    ids = case.item.prompt_ids
    return stored.prompt(case.explainer, ids) if ids else str(case.item.question)


def _right(item: Item) -> str:
    """The best reference, as the beginning of a sentence."""
    return item.references[0][:1].upper() + item.references[0][1:]


def _within(region: float) -> float:
    return csr([region])


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
    Metric(
        "amcr",
        "lower",
        "Share of the picture to hide until the answer is right",
        partial(region_parts, float),
        fill="black",
    ),
    Metric("csr", "higher", "Whether a tenth is enough", partial(region_parts, _within), fill="black"),
]
