"""An explanation as plain values, for other programs and as a table."""

from __future__ import annotations

import json
from math import nan
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dexar_fast.errors import LibraryError
from dexar_fast.report import placing, words
from dexar_fast.results import cells
from dexar_fast.results.schema import ARRAYS, Result
from dexar_fast.results.text_relevance import TextRelevance

if TYPE_CHECKING:
    from pandas import DataFrame


def plain(explanation: Result) -> dict[str, Any]:
    """See `Explanation.to_dict`."""
    document = {
        "grids": _grids(explanation),
        "diagnostics": explanation.diagnostics,
        "metadata": explanation.metadata,
    }
    return {
        "text": words.answer(explanation),
        "tokens": list(explanation.tokens),
        **{name: getattr(explanation, name).tolist() for name in ARRAYS},
        "text_relevance": _text(explanation.text_relevance),
        **json.loads(json.dumps(document)),
    }


def _text(found: TextRelevance | None) -> dict[str, Any] | None:
    if found is None:
        return None
    arrays = {name: getattr(found, name).tolist() for name in ("positions", "maps", "unfiltered_maps")}
    return {"tokens": list(found.tokens), **arrays}


def _grids(explanation: Result) -> list[dict[str, Any]]:
    labels = cells.labels_of(explanation.grids)
    rows = cells.rows_of(explanation.grids)
    return [row | {"labels": labels[row["labels"]].tolist()} if "labels" in row else row for row in rows]


def frame(explanation: Result) -> DataFrame:
    """See `Explanation.to_pandas`."""
    try:
        from pandas import DataFrame
    except ImportError as error:
        raise LibraryError(f"to_pandas() needs pandas ({error}): pip install pandas") from error
    return DataFrame(columns_of(explanation))


def columns_of(explanation: Result) -> dict[str, list[Any]]:
    """The columns of `Explanation.to_pandas`, each with a value for each of the T tokens."""
    places = [_brightest(explanation, values) for values in explanation.token_maps.numpy()]
    return {
        "token": list(explanation.tokens),
        "token_id": explanation.token_ids.tolist(),
        "weight": explanation.token_weights.tolist(),
        "heads_kept": (explanation.head_weights > 0).sum((1, 2)).tolist(),
        "image": [image for image, _, _ in places],
        "x": [x for _, x, _ in places],
        "y": [y for _, _, y in places],
    }


def _brightest(explanation: Result, values: NDArray[np.floating]) -> tuple[float, float, float]:
    """(image, x, y) of the brightest cell's centre; NaN where the map is constant or has no place."""
    cells = [values[grid.cells] for grid in explanation.grids]
    if not cells or max(cell.max() for cell in cells) == min(cell.min() for cell in cells):
        return nan, nan, nan
    grid, most = max(zip(explanation.grids, cells, strict=True), key=lambda pair: pair[1].max())
    row, column = divmod(int(most.argmax()), grid.columns)
    placing.check_size(explanation, grid.image)
    left, top, right, bottom = placing.box(explanation, grid)
    x, y = (column + 0.5) / grid.columns, (row + 0.5) / grid.rows
    return grid.image, left + x * (right - left), top + y * (bottom - top)
