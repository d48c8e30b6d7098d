"""Whose fault an exception is: what torch, transformers or a model raise reaches users as a DexarError that says so.

An exception of the user's own code (a callback of generate(), or a hook on the model) passes as it is.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial, wraps
from traceback import walk_tb
from types import CodeType, FrameType
from typing import Any, Concatenate, ParamSpec, TypeVar

import torch
from torch import nn

from dexar_fast.errors import (
    DexarError,
    InputError,
    InternalError,
    LibraryError,
    ModelError,
    NumericalError,
    OutOfMemoryError,
    reason,
)
from dexar_fast.model.elsewhere.begun import copied
from dexar_fast.model.kinds import encodes
from dexar_fast.model.lending.locks import check_process
from dexar_fast.model.lending.session import borrowed
from dexar_fast.model.memory import is_out_of_memory

# generate()'s arguments that are the user's own code
CALLBACKS = ("streamer", "logits_processor", "stopping_criteria", "prefix_allowed_tokens_fn", "custom_generate")
STREAMS = ("put", "end")  # the methods of a streamer
LIBRARIES = ("dexar_fast", "transformers", "accelerate", "peft")  # their hooks are not the user's
BESIDE = ("torch", *sys.stdlib_module_names)  # code that raises for whoever calls it
OF_INPUTS = (ValueError, RuntimeError, IndexError)  # what a forward raises for numbers or shapes that do not fit
ENTRY = nn.Module._call_impl.__code__  # runs every module's forward and hooks

Given = ParamSpec("Given")
Out = TypeVar("Out")
Method = Callable[Concatenate[Any, Given], Out]
Place = tuple[FrameType, int]  # a frame of a traceback, and its line


@contextmanager
def named(
    model: Any, inputs: Mapping[str, Any] | None = None, arguments: Mapping[str, Any] | None = None
) -> Iterator[None]:
    """Turns what others raise inside the block into the DexarError that says whose fault it is.

    Args:
        inputs: of the model's forward, as far as they are known. arguments: of generate().
    """
    try:
        yield
    except DexarError:
        raise
    except Exception as error:
        places = list(walk_tb(error.__traceback__))
        if _is_the_users(places, model, arguments or {}):
            raise
        raise _judged(error, places, model, inputs, arguments or {}) from error


def of_method(method: Method[Given, Out]) -> Method[Given, Out]:
    """`named` around a method of an object with a `model`; all its keyword arguments count as generate()'s.

    In a forked child that would hang it raises InputError instead.
    """

    @wraps(method)
    def call(self: Any, *args: Given.args, **kwargs: Given.kwargs) -> Out:
        check_process(self.model)
        with named(self.model, None, kwargs):
            return method(self, *args, **kwargs)

    return call


@contextmanager
def sampled() -> Iterator[None]:
    """Turns torch's refusal to sample from NaN or infinity into a NumericalError."""
    try:
        yield
    except RuntimeError as error:
        if "probability tensor" not in str(error):
            raise
        raise NumericalError("NaN or infinity in the model's logits: no answer can be sampled from them") from error


def _judged(
    error: Exception, places: list[Place], model: Any, inputs: Mapping[str, Any] | None, arguments: Mapping[str, Any]
) -> DexarError:
    said = f"{type(error).__name__}: {reason(error)} ({_where(places)})"
    name = type(model).__name__
    if isinstance(error, Warning):
        return LibraryError(f"warnings are errors in this program, and {_root(places)} warns: {said}")
    if isinstance(error, ImportError):
        return LibraryError(f"{_root(places)} lacks a library: {said}")
    if isinstance(error, MemoryError) or is_out_of_memory(error):
        return OutOfMemoryError(f"explaining does not fit: {reason(error)}")
    entered, ours = _deepest(places, _enters), _deepest(places, _is_ours)
    generating = any(_is_generate(frame) for frame, _ in places[max(ours, 0) :])
    asked = ", ".join(given for given in arguments if given != "max_new_tokens")
    if inputs is not None and (entered >= 0 or generating):  # generate() may read the images before any forward
        for run in _runs(model, generating):
            own = _by_itself(model, run, inputs)
            if own is not None:
                return _of_dtype(own, model, run, inputs) or _of_run(own, model, run is model)
        if entered > ours and not (generating and asked):
            return ModelError(f"{name} runs by itself on these inputs, but not as dexar_fast runs it: {said}")
    if generating:
        if asked:
            return InputError(f"generate() refuses its arguments ({asked}) or fails with them: {said}")
        return ModelError(f"generate() of {name} fails: {said}")
    return InternalError(f"dexar_fast failed, by a fault of its own; please report this with its traceback: {said}")


def _runs(model: Any, generating: bool) -> list[Any]:
    """What of a model runs on a prompt alone: an encoder-decoder's forward needs the answer's first id."""
    forward = [] if encodes(model) else [model]
    return [*forward, model.generate] if generating or not forward else forward


def _of_dtype(error: Exception, model: Any, run: Any, inputs: Mapping[str, Any]) -> DexarError | None:
    """The error of a model that takes these inputs only in its own dtype (processors make float32), or None."""
    others = [name for name, value in inputs.items() if _is_float(value) and value.dtype != model.dtype]
    cast = {name: value.to(model.dtype) if name in others else value for name, value in inputs.items()}
    if not others or _by_itself(model, run, cast) is not None:
        return None
    kind = str(model.dtype).removeprefix("torch.")
    return InputError(
        f"{type(model).__name__} does not cast its inputs, and {' and '.join(others)} differ from its {kind}: call the "
        f"processor, and pass its output .to(model.dtype) to explain_inputs() ({type(error).__name__}: {reason(error)})"
    )


def _is_float(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.is_floating_point()


def _of_run(error: Exception, model: Any, forward: bool) -> DexarError:
    """The error for what the model's forward, or its generate(), raises without us."""
    name, dtypes = type(model).__name__, {str(x.dtype) for x in model.parameters() if x.is_floating_point()}
    said = f"{type(error).__name__}: {reason(error)} ({_where(list(walk_tb(error.__traceback__)))})"
    code = isinstance(error, NotImplementedError) or not isinstance(error, OF_INPUTS)
    if not forward or (code and not _misses_an_input(error)):
        run = f"{name}'s own forward" if forward else f"generate() of {name}"
        return ModelError(f"{run} fails, without dexar_fast, too, with {said}")
    if "dtype" in str(error) and len(dtypes) > 1:
        return ModelError(
            f"{name} holds weights of {' and '.join(sorted(dtypes))}, which do not go together: cast the whole model "
            f"by model.to(dtype), or load it in one dtype: {said}"
        )
    return InputError(f"the model refuses its inputs, pass what its processor returns: {said}")


def _misses_an_input(error: Exception) -> bool:
    """Whether the code broke at an input that was left out, or at one that it does not take."""
    return "NoneType" in str(error) or (
        isinstance(error, TypeError) and "argument" in str(error) and "argument after" not in str(error)
    )


@torch.no_grad()
def _by_itself(model: Any, run: Any, inputs: Mapping[str, Any]) -> Exception | None:
    """What the model's forward, or its generate(), raises under its own attention and cache; None if it runs."""
    try:
        with borrowed(model) as loan, loan.own_attention():
            run(**inputs) if run is model else run(**copied(inputs), max_new_tokens=1, do_sample=False)
    except Exception as error:
        return error
    return None


def _is_the_users(places: list[Place], model: Any, arguments: Mapping[str, Any]) -> bool:
    given = [_unwrapped(each) for each in (*_callbacks(arguments), *_hooks(model))]
    codes = {code for each in given for code in _codes(each)}
    things = {id(each) for each in given}
    return any(frame.f_code in codes or id(_self(frame)) in things for frame, _ in places)


def _callbacks(arguments: Mapping[str, Any]) -> Iterator[Any]:
    for name in CALLBACKS:
        value = arguments.get(name)
        yield from value if isinstance(value, list | tuple) else [] if value is None else [value]


def _hooks(model: Any) -> Iterator[Any]:
    for module in model.modules() if isinstance(model, nn.Module) else ():
        for hook in (*module._forward_hooks.values(), *module._forward_pre_hooks.values()):
            if str(getattr(hook, "__module__", "")).split(".")[0] not in LIBRARIES:
                yield hook


def _unwrapped(thing: Any) -> Any:
    return _unwrapped(thing.func) if isinstance(thing, partial) else thing


def _codes(thing: Any) -> Iterable[CodeType]:
    """The code that runs when a thing is called, or streamed to."""
    called = [thing, *(getattr(thing, name, None) for name in STREAMS)]
    return [f.__code__ for f in (getattr(each, "__func__", each) for each in called) if hasattr(f, "__code__")]


def _self(frame: FrameType) -> Any:
    """The first argument of a frame's function."""
    code = frame.f_code
    return frame.f_locals.get(code.co_varnames[0]) if code.co_argcount else None


def _enters(frame: FrameType) -> bool:
    return frame.f_code is ENTRY


def _is_ours(frame: FrameType) -> bool:
    return _library(frame) == "dexar_fast" and frame.f_globals["__name__"] != __name__


def _is_generate(frame: FrameType) -> bool:
    return frame.f_code.co_name == "generate" and _library(frame) != "dexar_fast"


def _deepest(places: list[Place], is_meant: Any) -> int:
    return max((index for index, (frame, _) in enumerate(places) if is_meant(frame)), default=-1)


def _library(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", "")).split(".")[0]


def _raiser(places: list[Place]) -> Place:
    """The innermost place that is not merely torch's or Python's own."""
    return next((place for place in reversed(places) if _library(place[0]) not in BESIDE), places[-1])


def _root(places: list[Place]) -> str:
    return _library(_raiser(places)[0])


def _where(places: list[Place]) -> str:
    frame, line = _raiser(places)
    return f"{frame.f_globals.get('__name__')}, line {line}"
