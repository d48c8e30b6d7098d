"""What the terminal says of knobs, as the Explainer and generate() take it."""

from __future__ import annotations

import json
from difflib import get_close_matches
from typing import Annotated, Any

import typer

from dexar_fast.errors import InputError

TEXTS = ("cache_implementation", "early_stopping", "stop_strings")  # settings of generate() that may be text
OF_SAMPLING = ("temperature", "top_k", "top_p", "top_h", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff")


def _layers(text: Any) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no list of layers: write 0,1,-1 (negative from the end)") from None


def _head_score(text: Any) -> Any:
    return text if text in ("max", "mean") else _pair(text, "topk", "max, mean")


def _map_filter(text: Any) -> Any:
    return _pair(text, "rank", "")


def _pair(text: str, name: str, others: str) -> tuple[str, int]:
    """("rank", 5) of "rank:5"."""
    kind, _, number = text.partition(":")
    if kind != name or not (number.isascii() and number.isdigit()):
        known = f"{name}:K with a whole number K"
        raise typer.BadParameter(f"{text!r} is not {known}" if not others else f"{text!r} is none of {others}, {known}")
    return kind, int(number)


Layers = Annotated[
    Any, typer.Option(help="Layers to explain: 0,1,-1. \\[default: all]", parser=_layers, metavar="N,N,...")
]
LayerIndex = Annotated[int | None, typer.Option(help="Explain from this layer on; negative from the end.")]
TextSet = Annotated[str, typer.Option(help="Keys that count as text: all, content, prompt or generated.")]
HeadScore = Annotated[
    Any, typer.Option(help="A head's score over keys: max, mean or topk:K.", parser=_head_score, metavar="SCORE")
]
MapFilter = Annotated[
    Any, typer.Option(help="rank:K, K from 1 to 9: against single hot patches.", parser=_map_filter, metavar="FILTER")
]
SequenceNorm = Annotated[
    str, typer.Option(help="none, or token: scale each token's map to [0, 1] before they are summed.")
]
TextRelevance = Annotated[
    bool,
    typer.Option("--text-relevance", help="Also find which earlier words each token rests on; the report shows them."),
]
Generate = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=VALUE",
        help="A setting of transformers' generate(): do_sample=true, temperature=0.7, ... Values are JSON, or else "
        "text. May be given several times.",
    ),
]
Method = Annotated[
    str,
    typer.Option(
        metavar="NAME[:KNOB=VALUE,...]",
        help="dex-ar, or another method with its knobs: eagle:regions=36,variant=exact. The options below up to "
        "--text-relevance are knobs of dex-ar.",
    ),
]
DeviceMap = Annotated[
    str | None,
    typer.Option(help="Where accelerate puts the parts of the model: auto, ... or JSON; instead of --device."),
]


def generate_settings(given: list[str] | None, max_new_tokens: int | None) -> dict[str, Any]:
    """The settings of generate() in NAME=VALUE texts, and `max_new_tokens` where it is a number.

    Raises:
        InputError: no NAME=VALUE, a name that is no setting of generate(), one given twice, or text where none fits.
    """
    found: dict[str, Any] = {} if max_new_tokens is None else {"max_new_tokens": max_new_tokens}
    for text in given or []:
        name, equals, value = text.partition("=")
        if not equals:
            raise InputError(f"--generate {text!r} is not NAME=VALUE: write it as temperature=0.7")
        _check_setting(name)
        if name in found:
            raise InputError(f"{name} is given twice: leave one out")
        found[name] = json_or_text(value)
        if isinstance(found[name], str) and name not in TEXTS:
            raise InputError(
                f"--generate {text!r}: the value is none of JSON's: write a number, true, false, null, [1, 2]"
            )
    return found


def check_sampling(model: Any, arguments: dict[str, Any]) -> None:
    """Raises InputError for settings of sampling where the model does not sample: generate() would ignore them."""
    from dexar_fast.generation.arguments import setting

    given = [name for name in OF_SAMPLING if arguments.get(name) is not None]
    if given and not setting(model, arguments, "do_sample"):
        raise InputError(f"{', '.join(given)} without sampling does nothing: add --generate do_sample=true")


def json_or_text(value: str) -> Any:
    """What JSON says, or the text where it is none (NaN and Infinity are none)."""
    try:
        return json.loads(value, parse_constant=_refuse)
    except ValueError:
        return value


def _refuse(constant: str) -> None:
    raise ValueError(constant)


def _check_setting(name: str) -> None:
    from transformers import GenerationConfig

    known = [each for each in vars(GenerationConfig()) if not each.startswith("_") and each != "transformers_version"]
    if name not in known:
        close = get_close_matches(name, known, 1)
        meant = f"do you mean {close[0]}?" if close else "see transformers.GenerationConfig"
        raise InputError(f"--generate: {name!r} is no setting of generate() ({meant})")
