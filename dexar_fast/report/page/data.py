"""The numbers of an explanation as a page's script reads them."""

from __future__ import annotations

import base64
import sys
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dexar_fast.report import placing
from dexar_fast.report.page.earlier import Earlier
from dexar_fast.report.page.pictures import Picture
from dexar_fast.report.words import Pieces
from dexar_fast.results.schema import Result
from dexar_fast.vision import maps

_FINE, _COARSE, _COARSEST = 255, 15, 5
_MOST_FINE, _MOST_COARSE = 2**19, 3 * 2**19  # more numbers take fewer steps: a page stays small


def encode(explanation: Result, pieces: Pieces, pictures: Sequence[Picture], earlier: Earlier | None) -> dict[str, Any]:
    """Plain JSON. Cells and heads are bytes, deflated and in base64; the whole answer is the row after the pieces.

    `maps` holds [U + 1, C] steps of 255, the C cells of all grids, each row from its `low` to its `high`; `heads` holds
    [U + 1, L * H] steps of `steps`, each row from 0 to its `peak`, and of 255 one at least for what is above 0;
    `curves` holds their sums over the heads of a layer, [U + 1, L] steps of 255, each row from 0 to its `height`;
    `text` is None, or its `rests` hold [U + 1, K + U] steps of `steps`, each row from 0 to its largest
    (`Earlier.rests`).
    """
    cells = [grid.cells for grid in explanation.grids]
    order = np.concatenate([cell.ravel() for cell in cells]) if cells else np.zeros(0, np.int64)
    values = np.vstack([pieces.maps, explanation.sequence_map.numpy().astype(np.float64)])
    heads = _with_whole_answer(explanation, pieces.heads)
    steps = _steps_for(heads.size)
    least = 1 if steps == _FINE else 0
    heads, peaks = _from_zero(heads)
    layers, sums = _from_zero(heads.reshape(len(heads), *explanation.head_weights.shape[1:]).sum(2))
    return {
        "grids": _grids(explanation),
        "pictures": [{"width": p.width, "height": p.height, "mapped": p.mapped, "name": p.name} for p in pictures],
        "maps": packed(np.array([maps.min_max_of(row, cells)[order] for row in values], np.float64) * _FINE),
        "heads": packed(np.where(heads > 0, np.maximum(heads * steps, least), 0)),
        "curves": packed(layers * _FINE),
        "steps": steps,
        "layers": _layers(explanation),
        "columns": explanation.head_weights.shape[2],
        "pieces": _rows(explanation, pieces, values[:, order], peaks.tolist(), sums.tolist()),
        "kept": [int(count) for count in (heads > 0).sum(1)],
        "text": None if earlier is None else _text(earlier),
    }


def packed(steps: NDArray[np.floating] | NDArray[np.uint8]) -> str:
    """Numbers from 0 to 255: rounded to bytes, deflated, in base64."""
    return base64.b64encode(zlib.compress(np.rint(steps).astype(np.uint8).tobytes(), 9)).decode()


def _text(earlier: Earlier) -> dict[str, Any]:
    steps = _steps_for(earlier.rests.size)
    strongest = [[(word, _short(value)) for word, value in row] for row in earlier.strongest]
    return {"rests": packed(_from_zero(earlier.rests)[0] * steps), "steps": steps, "strongest": strongest}


def _rows(
    explanation: Result, pieces: Pieces, cells: NDArray[np.float64], peaks: list[float], sums: list[float]
) -> list[dict[str, Any]]:
    """What is said of each piece and of the whole answer, from its cells [U + 1, C], its highest head (its `peak`), and
    the highest sum of a layer in units of that."""
    spans = [*pieces.spans, range(len(explanation))]
    numbers = zip([*pieces.weights, 0.0], *_extremes(cells), peaks, sums, strict=True)
    return [
        {
            "weight": _short(weight),
            "tokens": [span.start, span.stop],
            "low": _short(low),
            "high": _short(high),
            "peak": _short(peak),
            "height": _short(peak * total),
        }
        for span, (weight, low, high, peak, total) in zip(spans, numbers, strict=True)
    ]


def _grids(explanation: Result) -> list[dict[str, Any]]:
    grids, offset = [], 0
    for grid in explanation.grids:
        box = [float(edge) for edge in placing.box(explanation, grid)]
        grids.append({"first": grid.images.start, "stop": grid.images.stop, "rows": grid.rows,
                      "columns": grid.columns, "offset": offset, "box": box})  # fmt: skip
        offset += grid.rows * grid.columns
    return grids


def _with_whole_answer(explanation: Result, heads: NDArray[np.float64]) -> NDArray[np.float64]:
    """[U, L, H] -> [U + 1, L * H], in the last row each head's largest weight."""
    whole = explanation.head_weights.numpy().max(0, initial=0)
    return np.vstack([heads.reshape(len(heads), whole.size), whole.reshape(1, -1)])


def _steps_for(numbers: int) -> int:
    if numbers > _MOST_COARSE:
        return _COARSEST
    return _COARSE if numbers > _MOST_FINE else _FINE


def _from_zero(rows: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(each row divided by its largest value, these values)."""
    peaks = rows.max(1, initial=0)
    return rows / np.where(peaks > 0, peaks, 1)[:, None], peaks


def _extremes(rows: NDArray[np.float64]) -> tuple[list[float], list[float]]:
    if rows.shape[1] == 0:
        return [0.0] * len(rows), [0.0] * len(rows)
    return rows.min(1).tolist(), rows.max(1).tolist()


def _layers(explanation: Result) -> list[int]:
    """The number of each layer in the model where the settings tell, else 0, 1, ..."""
    count = explanation.head_weights.shape[1]
    settings = explanation.metadata.get("settings")
    layers = settings.get("layers") if isinstance(settings, dict) else None
    known = isinstance(layers, list) and len(layers) == count and all(isinstance(layer, int) for layer in layers)
    return layers if known and layers is not None else list(range(count))


def _short(value: float) -> float:
    """Four digits; capped, since the largest number would round up to infinity."""
    return min(max(float(f"{value:.4g}"), -sys.float_info.max), sys.float_info.max)
