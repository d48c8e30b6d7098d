"""TAM as its formula reads: all logits of the model, a minimiser for each word, a filter for each map.

Written from the definitions, to be measured beside `dexar_fast.methods.activation.tam`; nothing of that is used.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view
from scipy.optimize import minimize_scalar

from bench.subjects import Subject

Array = Any  # of numpy
Filter = Callable[[Array], Array]
RANKS = np.arange(-4, 5)
TINY = 1e-30


def at_once(image: Array) -> Array:
    """The rank-Gaussian filter of [rows, columns], all windows in one call."""
    windows = sliding_window_view(np.pad(image, 1, mode="reflect"), (3, 3)).reshape(*image.shape, 9)
    ordered = np.sort(windows, axis=-1)
    mean, deviation = ordered.mean(-1, keepdims=True), ordered.std(-1, keepdims=True)
    spread = np.divide(deviation, mean, out=np.zeros_like(mean), where=mean > 0)
    weights = np.exp(-(RANKS**2) / np.maximum(2 * spread**2, 1e-12))
    return (ordered * weights).sum(-1) / weights.sum(-1)


def one_by_one(image: Array) -> Array:
    """The same, window by window."""
    padded, found = np.pad(image, 1, mode="reflect"), np.zeros_like(image)
    for row, column in np.ndindex(image.shape):
        ordered = np.sort(padded[row : row + 3, column : column + 3].ravel())
        mean = ordered.mean()
        if mean > 0:
            weights = np.exp(-(RANKS**2) / max(2 * (ordered.std() / mean) ** 2, 1e-12))
            found[row, column] = (ordered * weights).sum() / weights.sum()
    return found


@torch.no_grad()
def maps(subject: Subject, normed: torch.Tensor, filtered: Filter) -> torch.Tensor:
    """Token maps [T, N] of one square grid, from the logits of the whole vocabulary at all positions.

    Args:
        normed: [1, P + T - 1, d] what the output head reads.
    """
    scores, visual = subject.model.lm_head(normed)[0].clamp_min(0).numpy(), subject.visual.numpy()
    prompt, targets = subject.inputs["input_ids"][0].tolist(), subject.targets.tolist()
    words = [(prompt[place], place) for place in range(int(visual[-1]) + 1, len(prompt))]
    items = words + [(target, len(prompt) - 1 + number) for number, target in enumerate(targets)]
    raw = [scores[visual, word] for word, _ in items]
    found = [_map(items[: last + 1], raw[: last + 1], scores, filtered) for last in range(len(words), len(items))]
    return torch.from_numpy(np.stack(found))


def _map(items: list[tuple[int, int]], raw: list[Array], scores: Array, filtered: Filter) -> Array:
    """The map of the last item, which those before it correct."""
    target = items[-1][0]
    text = np.array([scores[place, target] for _, place in items[:-1]])
    weights = text * np.array([word != target for word, _ in items[:-1]])
    explained = np.tensordot(weights / (weights.sum() + 1e-8), np.stack(raw[:-1]), 1)
    factor = minimize_scalar(lambda a: np.square(raw[-1] - a * explained).sum()).x
    left = np.maximum(raw[-1] - factor * explained, 0)
    low, high = min(left.min(), text.min()), max(left.max(), text.max())
    side = round(len(left) ** 0.5)
    return filtered(((left - low) / max(high - low, TINY)).reshape(side, side)).ravel()
