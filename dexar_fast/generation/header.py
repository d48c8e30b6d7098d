"""What a result says of the request and the model that made it."""

from __future__ import annotations

from typing import Any

import torch
import transformers

from dexar_fast import __version__
from dexar_fast.generation.setup import Setup
from dexar_fast.loading.names import shown
from dexar_fast.prompt import positions
from dexar_fast.prompt.request import Request
from dexar_fast.results.assembly import ResultHeader
from dexar_fast.vision.geometry import Layout


def header(
    setup: Setup, request: Request, placed: Layout, settings: dict[str, Any], more: dict[str, Any]
) -> ResultHeader:
    """What a result holds that does not grow with the answer; `settings` and `more` go into its metadata."""
    return ResultHeader(
        visual=placed.positions,
        grids=placed.grids,
        images=tuple(request.images),
        warnings=[*setup.warnings, *doubts(setup.model, request), *filter(None, [placed.warning])],
        metadata=_metadata(setup.model, request, settings) | more | {"complete": False} | _prompt(request),
    )


def doubts(model: Any, request: Request) -> list[str]:
    """Warnings that the model may not read what the user means."""
    return [*request.warnings, *filter(None, [positions.warning(model, request.inputs)])]


def _metadata(model: Any, request: Request, settings: dict[str, Any]) -> dict[str, Any]:
    return {
        "model": shown(model.config.name_or_path),
        "model_class": type(model).__name__,
        "dtype": str(model.dtype).removeprefix("torch."),
        "device": str(model.device),
        "settings": settings,
        "prompt_tokens": len(request.ids),
        "versions": {
            "dexar_fast": __version__,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
    }


def _prompt(request: Request) -> dict[str, Any]:
    return {} if request.text is None else {"question": request.question, "prompt": request.text}
