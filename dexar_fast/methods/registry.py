"""Methods by name: those of this package, and those that other packages plug in."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from importlib.metadata import entry_points
from typing import Any

from dexar_fast import methods
from dexar_fast.errors import InputError, LibraryError
from dexar_fast.methods.base import Method
from dexar_fast.methods.dex_ar import DexAr
from dexar_fast.settings import Settings

ENTRY_POINTS = "dexar_fast.methods"  # the group in which a package names its own methods
_OURS = {
    "attention": "Attention",
    "attention-gradient": "AttentionGradient",
    "attn-lrp": "AttnLrp",
    "captum": "Captum",
    "centre": "Centre",
    "eagle": "Eagle",
    "gradient-x-input": "GradientXInput",
    "igos++": "IgosPp",
    "input-gradient": "InputGradient",
    "integrated-gradients": "IntegratedGradients",
    "llava-cam": "LlavaCam",
    "occlusion": "Occlusion",
    "random": "Random",
    "random-smooth": "SmoothRandom",
    "relevancy": "Relevancy",
    "rise": "Rise",
    "rollout": "Rollout",
    "shapley": "Shapley",
    "smoothgrad": "SmoothGrad",
    "tam": "Tam",
    "uniform": "Uniform",
}


def names() -> list[str]:
    """Every method that `of` knows here."""
    return sorted({DexAr.name, *_OURS, *entry_points(group=ENTRY_POINTS).names})


def of(method: str | Method | DexAr) -> Method | DexAr:
    """A method from its name, or from its name and knobs ("eagle:regions=36,variant=exact"); an object stays as it is.

    Raises:
        InputError: no such method or knob, a value that the knob refuses, or no object with a name and `maps`.
        LibraryError: a method of another package that cannot be imported.
    """
    if not isinstance(method, str):
        if not (isinstance(method, DexAr) or _is_method(method)):
            raise InputError(
                f"method must be one of {', '.join(names())}, or an object with a `name` and `maps`, not {method!r}"
            )
        return method
    name, _, knobs = method.partition(":")
    kind = DexAr if name == DexAr.name else _loader(name)()
    given = _knobs(method, knobs)
    known = [field.name for field in fields(kind)] if is_dataclass(kind) else []
    unknown = [knob for knob in given if knob not in known]
    if unknown:
        raise InputError(f"{unknown[0]!r} is no knob of {name!r}: it has {', '.join(known) or 'none'}")
    return kind(**given)


def _is_method(given: Any) -> bool:
    named = isinstance(getattr(given, "name", None), str)
    return named and callable(getattr(given, "maps", None)) and not isinstance(given, type)


def _knobs(method: str, text: str) -> dict[str, Any]:
    """Of KNOB=VALUE texts: the values are JSON, or else text."""
    pairs = [pair.partition("=") for pair in _apart(text)] if text else []
    if not all(equals for _, equals, _ in pairs):
        raise InputError(f"method {method!r} is not NAME:KNOB=VALUE,KNOB=VALUE")
    return {knob.strip(): _value(value) for knob, _, value in pairs}


def _apart(text: str) -> list[str]:
    """What stands between commas that no bracket holds."""
    parts, depth = [""], 0
    for letter in text:
        depth += (letter == "[") - (letter == "]")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return parts


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def with_knobs(method: str | Method | DexAr, knobs: Settings) -> Method | DexAr:
    """The method; DEX-AR by its name takes the knobs given beside it. Raises InputError as `of`."""
    if isinstance(method, str) and method == DexAr.name:
        return DexAr(**vars(knobs))
    if knobs != Settings():
        raise InputError(f"mode, layers, head_score, ... are knobs of 'dex-ar': {method!r} takes its own, in its class")
    return of(method)


def _loader(name: str) -> Callable[[], Any]:
    """What imports the class of a method."""
    if name in _OURS:
        return lambda: getattr(methods, _OURS[name])
    for found in entry_points(group=ENTRY_POINTS, name=name):
        return lambda: _imported(name, found.load)
    close = get_close_matches(name, names(), 1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    raise InputError(f"method {name!r} is none of {', '.join(names())}{hint}")


def _imported(name: str, load: Callable[[], Any]) -> Any:
    try:
        return load()
    except Exception as error:  # another package's code, which may raise anything
        raise LibraryError(f"the method {name!r} that a package plugs in cannot be imported: {error}") from error
