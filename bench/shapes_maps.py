"""Where DEX-AR's maps of right answers lie on Shapes scenes: EPG, pointing, SNR and token weights, beside
chance."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dexar_fast import Explainer, Explanation
from dexar_fast.data.shapes import QUESTION_KINDS, Question, draw_scene, sample_questions
from dexar_fast.metrics import chance, maps
from dexar_fast.metrics import segmentation as metrics

# Group name -> scene -> one row of scores per word.
Table = dict[tuple[str, str, str], dict[int, list[list[float]]]]
COLUMNS = ("EPG", "pointing", "SNR dB", "blank", "weight", "weight>0")
MAP_COLUMNS = 4
SOURCES = ("filtered", "unfiltered", "uniform", "random smooth", "centred")
RESAMPLES = 1000


def print_maps(model: Path, seeds: Sequence[int]) -> None:
    """Words are grouped by question and kind. Filler words, and words about nothing, are scored against the
    union of the masks. Intervals: 95 % bootstrap over scenes. Token weights do not depend on the map."""
    table: Table = defaultdict(lambda: defaultdict(list))
    explainer = Explainer.from_pretrained(str(model))
    for seed in seeds:
        add_scene(table, explainer, seed)
    print(f"\nmaps of the right answers on {len(seeds)} unseen scenes from seed {seeds[0]}")
    print(f"{'question':13}{'word':8}{'map':15}{'n':>6}" + "".join(f"{name:>24}" for name in COLUMNS))
    for (kind, word, source), scenes in sorted(table.items(), key=_order):
        cells = intervals(scenes)[: len(COLUMNS) if source == SOURCES[0] else MAP_COLUMNS]
        words = sum(map(len, scenes.values()))
        print(f"{kind:13}{word:8}{source:15}{words:6}" + "".join(f"{cell:>24}" for cell in cells))


def _order(item: tuple[tuple[str, str, str], object]) -> tuple[int, int, int]:
    kind, word, source = item[0]
    return QUESTION_KINDS.index(kind), ("color", "shape", "filler").index(word), SOURCES.index(source)


def add_scene(table: Table, explainer: Explainer, seed: int) -> None:
    scene, rng = draw_scene(seed), np.random.default_rng([seed, 2])
    for question in sample_questions(scene.objects, rng):
        explanation = explainer.explain(scene.image, question.text, response=question.answer)
        for token, index in word_tokens(explanation, question):
            word = question.words[index]
            mask = scene.masks.any(axis=0) if word.index is None else scene.masks[word.index]
            weight = float(explanation.token_weights[token])
            for source, a, blank in scored_maps(explanation, token, mask, rng):
                row = [
                    metrics.energy_inside(a, mask),
                    metrics.points_at(a, mask),
                    metrics.snr(a, mask),
                    float(blank),
                    weight,
                    float(weight > 0),
                ]
                table[question.kind, word.kind, source][seed].append(row)


def word_tokens(explanation: Explanation, question: Question) -> Iterator[tuple[int, int]]:
    """(token, word) pairs of an explained answer; each word of the set is one token of the embedded model."""
    spoken = [(i, text.strip()) for i, text in enumerate(explanation.tokens) if text.strip()]
    words = [word.text.strip() for word in question.words]
    if [text for _, text in spoken] != words:
        raise ValueError(f"tokens {explanation.tokens} are not the words of {question.answer!r}")
    yield from ((token, index) for index, (token, text) in enumerate(spoken) if text.isalpha())


def scored_maps(
    explanation: Explanation, token: int, mask: NDArray[np.bool_], rng: np.random.Generator
) -> Iterator[tuple[str, maps.Map, bool]]:
    """(name, map at the mask's size, blank) of the two maps of a token and of three that know nothing."""
    grid = explanation.grids[0]
    for name, every in (
        ("filtered", explanation.token_maps),
        ("unfiltered", explanation.unfiltered_token_maps),
    ):
        raw = every[token].numpy().reshape(grid.rows, grid.columns)
        yield name, maps.prepared(raw, *mask.shape), maps.is_blank(raw)
    yield "uniform", chance.uniform(*mask.shape), False
    yield "random smooth", chance.random_smooth(*mask.shape, rng), False
    yield "centred", chance.centred(*mask.shape), False


def intervals(scenes: dict[int, list[list[float]]]) -> list[str]:
    """'mean [low, high]' per column, resampling scenes with all their words."""
    sums = np.array([np.sum(rows, axis=0) for rows in scenes.values()])
    counts = np.array([len(rows) for rows in scenes.values()])
    drawn = np.random.default_rng(0).integers(len(counts), size=(RESAMPLES, len(counts)))
    means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)[:, None]
    low, high = np.percentile(means, [2.5, 97.5], axis=0)
    return [f"{m:.3f} [{a:.3f},{b:.3f}]" for m, a, b in zip(sums.sum(axis=0) / counts.sum(), low, high, strict=True)]
