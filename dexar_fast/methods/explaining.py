"""Runs a method on a request: the answer first, then its maps, then a result that holds them."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from numbers import Number
from typing import Any

import torch
from torch import Tensor

from dexar_fast.errors import DexarError, InputError, ModelError
from dexar_fast.explanation import Explanation
from dexar_fast.generation.runner import Runner
from dexar_fast.generation.stream import Stream
from dexar_fast.methods.base import Asked, Maps, Method
from dexar_fast.methods.dex_ar import DexAr
from dexar_fast.prompt.pieces import pieces
from dexar_fast.results.assembly import ResultHeader
from dexar_fast.results.schema import all_finite


def explain(runner: Runner, method: Method | DexAr) -> Explanation:
    """Explains the answer of a request, given or written by the model, by a method.

    Raises:
        InputError: a folder for a method that does not go along with the answer. InputError, ModelError: the method is
            not defined for this request or this model. Else as `Runner.explain`.
    """
    if isinstance(method, DexAr):
        return runner.explain()
    if runner.out is not None:
        raise InputError(f"{method.name!r} explains an answer as a whole: leave out= out, and save() the result")
    laps, known = runner.laps(), runner.knows_decoder
    with runner.answered() as asked:
        laps.lap("answer")
        try:
            found = _maps(method, asked)
        except ModelError:
            if not known:
                raise
            found = _maps(method, runner.looked_at_again(asked))
        laps.lap("explain")
    tokens = pieces(getattr(asked.processor, "tokenizer", None), asked.targets.tolist())
    header = runner.header(settings(method), laps, own_cells=found.cells != asked.grids)
    return explanation(header, asked.targets, tokens, found)


def _maps(method: Method, asked: Asked) -> Maps:
    """What the method finds. What a method of another package raises names it."""
    try:
        found = method.maps(asked)
    except DexarError:
        raise
    except Exception as error:
        if type(method).__module__.split(".")[0] == __name__.split(".")[0]:
            raise
        raise ModelError(f"the method {method.name!r} failed: {type(error).__name__}: {error}") from error
    if not isinstance(found, Maps):
        raise ModelError(f"the method {method.name!r} gave a {type(found).__name__}: Maps are due")
    return found


def stream(runner: Runner, method: Method | DexAr, size: int) -> Stream:
    """The answer in pieces of `size` tokens, as it is written. Raises InputError where a method cannot go along."""
    if not isinstance(method, DexAr):
        raise InputError(f"{method.name!r} explains an answer as a whole: use explain(), or stream with 'dex-ar'")
    return runner.stream(size)


def explanation(header: ResultHeader, ids: Tensor, tokens: list[str], found: Maps) -> Explanation:
    """The result of a method for the T tokens of an answer. Raises ModelError for maps that no result can hold."""
    _check(found, len(ids))
    maps = found.token_maps
    weights = torch.ones(len(ids), dtype=maps.dtype) if found.token_weights is None else found.token_weights
    no_heads = torch.zeros(len(ids), 0, 0, dtype=maps.dtype)
    header.metadata["complete"] = True
    return Explanation(
        token_ids=ids,
        tokens=tokens,
        visual_positions=header.visual if found.cells == header.grids else torch.arange(maps.shape[1]),
        visual_scores=no_heads,
        text_scores=no_heads,
        head_weights=no_heads,
        token_weights=weights,
        token_maps=maps,
        unfiltered_token_maps=maps,
        sequence_map=found.sequence_map,
        unfiltered_sequence_map=found.sequence_map,
        grids=found.cells,
        diagnostics={
            "warnings": header.warnings,
            "weighted": found.token_weights is not None,
            "notes": list(found.notes),
            **found.diagnostics,
        },
        metadata=header.metadata,
        images=header.images,
    )


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
