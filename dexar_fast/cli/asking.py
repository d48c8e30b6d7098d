"""What every command that asks a model does: where the model comes from, its loading, its warnings."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from dexar_fast.cli import knobs
from dexar_fast.cli.messages import say
from dexar_fast.cli.waiting import waiting
from dexar_fast.errors import InputError

if TYPE_CHECKING:
    from dexar_fast.explainer import Explainer
    from dexar_fast.explanation import Explanation

STREAMED_TOKENS = 8  # shown at a time; each token is run twice, so fewer cost more
EMBEDDED = "Answered by the embedded model, which knows coloured shapes only: --model names another."


def placement(
    model: str | None, revision: str | None, device: str | None, device_map: str | None, dtype: str | None
) -> dict[str, Any]:
    """Which version of a model to load, where to put it and in which dtype; only what is given. Raises InputError."""
    if revision is not None and model is None:
        raise InputError("--revision is that of a model on the Hub: name one with --model")
    if device is not None and device_map is not None:
        raise InputError("--device and --device-map both say where the model goes: leave one out")
    found = {"revision": revision, "device": device, "dtype": dtype}
    found |= {"device_map": None if device_map is None else knobs.json_or_text(device_map)}
    return {name: value for name, value in found.items() if value is not None}


def against(text: str | None) -> str | int | None:
    """A token id where it is a number."""
    return int(text) if text is not None and text.isascii() and text.isdigit() else text


def check_given_answer(response: str | None, generate: list[str] | None) -> None:
    """Raises InputError for settings of generate() where no answer is generated."""
    if response is not None and generate:
        raise InputError("--generate says how an answer is written: leave out --response")


def explainer(model: str | None, options: dict[str, Any], arguments: dict[str, Any]) -> Explainer:
    """The explainer of a model; its warnings are said. Raises InputError for `arguments` of generate() without use."""
    with waiting("loading torch and transformers"):
        from dexar_fast import Explainer
    with nullcontext() if _may_download(model) else waiting("loading the model"):
        loaded = Explainer.from_pretrained(model, **options)
    knobs.check_sampling(loaded.model, arguments)
    for warning in loaded.warnings:
        say("warning:", warning)
    return loaded


def warnings_of(explanations: Iterable[Explanation], said: Iterable[str]) -> list[str]:
    """The warnings that were said, and those of explanations, each once; the new ones are said too."""
    found = list(said)
    for warning in (each for explanation in explanations for each in explanation.diagnostics.get("warnings", [])):
        if warning not in found:
            found.append(warning)
            say("warning:", warning)
    return found


def silence_bars(model: str | None) -> None:
    """Before the libraries are imported that would show progress bars."""
    if not _may_download(model):
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")


def _may_download(model: str | None) -> bool:
    """Whether the libraries below show their own progress bars, beside which a line of ours would be in the way."""
    return model is not None and not os.path.exists(model)
