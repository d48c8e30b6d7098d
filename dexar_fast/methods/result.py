"""From a method's maps to an Explanation."""

from __future__ import annotations

import copy
from dataclasses import fields, is_dataclass
from numbers import Number
from typing import Any

import torch
from torch import Tensor

from dexar_fast.errors import ModelError
from dexar_fast.explanation import Explanation
from dexar_fast.methods.base import Maps
from dexar_fast.results.assembly import ResultHeader, without_heads
from dexar_fast.results.schema import all_finite


def explanation(header: ResultHeader, ids: Tensor, tokens: list[str], found: Maps) -> Explanation:
    """The result of a method for the T tokens of an answer. Raises ModelError for maps that no result can hold."""
    header.metadata["complete"] = True
    return Explanation(**fields_of(header, ids, tokens, found))


def fields_of(header: ResultHeader, ids: Tensor, tokens: list[str], found: Maps) -> dict[str, Any]:
    """The fields of that. Raises as `explanation`."""
    _check(found, len(ids))
    maps = found.token_maps
    weights = torch.ones(len(ids), dtype=maps.dtype) if found.token_weights is None else found.token_weights
    return {
        "token_ids": ids,
        "tokens": tokens,
        "visual_positions": header.visual if found.cells == header.grids else torch.arange(maps.shape[1]),
        **without_heads(maps, found.sequence_map, weights),
        "grids": found.cells,
        "diagnostics": {
            "warnings": header.warnings,
            "weighted": found.token_weights is not None,
            "notes": list(found.notes),
            **found.diagnostics,
        },
        "metadata": copy.deepcopy(header.metadata),
        "images": header.images,
    }


def _check(found: Maps, tokens: int) -> None:
    """Raises ModelError for maps that no result can hold: a method may be anybody's code."""
    arrays = {"token_maps": found.token_maps, "sequence_map": found.sequence_map}
    if found.token_weights is not None:
        arrays["token_weights"] = found.token_weights
    for name, array in arrays.items():
        if not isinstance(array, Tensor) or not all_finite(array):
            raise ModelError(f"the method gave {name} that hold NaN or infinity, or are no tensor")
    if found.token_maps.shape != (tokens, *found.sequence_map.shape):
        raise ModelError(
            f"the method gave token_maps {list(found.token_maps.shape)} and sequence_map "
            f"{list(found.sequence_map.shape)} for {tokens} tokens: [T, N] and [N] are due"
        )


def settings(method: Any) -> dict[str, Any]:
    """The name of a method and its fields as plain JSON; of an array only its shape."""
    named = fields(method) if is_dataclass(method) else ()
    return {"method": method.name} | {field.name: _plain(getattr(method, field.name)) for field in named}


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Number):  # numpy's
        return value.item()  # type: ignore[attr-defined]
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    shape = getattr(value, "shape", None)
    return f"{type(value).__name__} {list(shape)}" if shape is not None else str(value)
