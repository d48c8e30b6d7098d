"""Runs a method on a request: the answer first, then its maps, then a result that holds them."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from dexar_fast.errors import DexarError, InputError, ModelError, NumericalError
from dexar_fast.explanation import Explanation
from dexar_fast.generation.runner import Runner
from dexar_fast.generation.scheduler import Begun
from dexar_fast.generation.stream import Stream
from dexar_fast.methods import contrast
from dexar_fast.methods.base import Asked, Maps, Method, Streaming
from dexar_fast.methods.dex_ar import DexAr
from dexar_fast.methods.followed import Followed
from dexar_fast.methods.result import explanation, settings
from dexar_fast.prompt.pieces import pieces
from dexar_fast.results.schema import all_finite
from dexar_fast.stages import Laps


def explain(runner: Runner, method: Method | DexAr) -> Explanation:
    """Explains the answer of a request, given or written by the model, by a method.

    Raises:
        InputError: a folder for a method that does not go along with the answer. InputError, ModelError: the method is
            not defined for this request or this model. NumericalError: NaN or infinity. Else as `Runner.explain`.
    """
    if isinstance(method, DexAr) and runner.setup.against is None:
        return runner.explain()
    if runner.out is not None:
        kind = "against" if isinstance(method, DexAr) else repr(method.name)
        raise InputError(f"{kind} explains an answer as a whole: leave out= out, and save() the result")
    if isinstance(method, DexAr):
        return _by_difference(runner, runner.setup.against)
    laps, known, against = runner.laps(), runner.knows_decoder, runner.setup.against
    with runner.answered() as asked:
        laps.lap("answer")
        asked = contrast.contrasted(asked, against)
        try:
            found = _maps(method, asked)
        except ModelError:
            if not known:
                raise
            found = _maps(method, runner.looked_at_again(asked))
        laps.lap("explain")
    tokens = pieces(getattr(asked.processor, "tokenizer", None), asked.targets.tolist())
    knobs = settings(method) | ({} if against is None else {"against": against})
    header = runner.header(knobs, laps, own_cells=found.cells != asked.grids)
    return explanation(header, asked.targets, tokens, contrast.said(found, asked, against))


def _by_difference(runner: Runner, against: contrast.Against) -> Explanation:
    """By DEX-AR, of the answer's tokens against others: first the answer, then one pass for the differences."""
    laps = runner.laps()
    with runner.answered() as asked:
        laps.lap("answer")
        asked = contrast.contrasted(asked, against)
    runner.request = replace(runner.request, targets=asked.targets, against=asked.against)
    found = runner.explain()
    settings = found.metadata["settings"] | {"against": against}
    return replace(
        found,
        diagnostics=found.diagnostics | {"against": contrast.texts_of(asked)},
        metadata=found.metadata | {"settings": settings, "seconds": laps.seconds | found.metadata["seconds"]},
    )


def _maps(method: Method, asked: Asked) -> Maps:
    """What the method finds. What a method of another package raises names it."""
    ours = type(method).__module__.split(".")[0] == __name__.split(".")[0]
    try:
        found = method.maps(asked)
    except DexarError:
        raise
    except Exception as error:
        if ours:
            raise
        raise ModelError(f"the method {method.name!r} failed: {type(error).__name__}: {error}") from error
    if not isinstance(found, Maps):
        raise ModelError(f"the method {method.name!r} gave a {type(found).__name__}: Maps are due")
    if ours and not all_finite(found.token_maps):
        raise NumericalError(
            f"NaN or infinity by {method.name!r}: check the model's weights, or load it in bfloat16 or float32"
        )
    return found


def stream(runner: Runner, method: Method | DexAr, size: int) -> Stream:
    """The answer in pieces of `size` tokens, as it is written. Raises InputError where a method cannot go along."""
    if runner.setup.against is not None:
        raise InputError("against compares tokens of an answer as a whole: use explain()")
    if isinstance(method, DexAr):
        return runner.stream(size)
    if not isinstance(method, Streaming) or not method.streams:
        knobs = f" with {method}" if isinstance(method, Streaming) else ""
        raise InputError(
            f"{method.name!r}{knobs} explains an answer as a whole: use explain(), or stream with 'dex-ar', "
            "'attention' or 'attention-gradient'"
        )
    if runner.out is not None:
        raise InputError(f"{method.name!r} streams without a folder: leave out= out, and save() the explanation")
    return runner.stream(size, partial(_begin, runner, method))


def _begin(runner: Runner, method: Streaming, asked: Asked, laps: Laps) -> Begun:
    following = method.follow(asked)
    record = Followed(runner.header(settings(method), laps), asked, following.maps)
    return Begun(following.plan, record)
