"""What a result says of the request and the model that made it."""

from __future__ import annotations

from typing import Any

import torch
import transformers

from dexar_fast import __version__
from dexar_fast.generation.setup import Setup
from dexar_fast.loading.names import shown
from dexar_fast.model.cache import goes_back
from dexar_fast.model.decoder import Decoder
from dexar_fast.model.kinds import reads_elsewhere
from dexar_fast.prompt import positions
from dexar_fast.prompt.request import Request
from dexar_fast.prompt.sampled import described
from dexar_fast.results.assembly import ResultHeader
from dexar_fast.vision.geometry import Layout


def header(
    setup: Setup, request: Request, placed: Layout, settings: dict[str, Any], more: dict[str, Any], pooled: bool
) -> ResultHeader:
    """What a result holds that does not grow with the answer; `settings` and `more` go into its metadata."""
    return ResultHeader(
        visual=placed.positions,
        grids=placed.grids,
        images=tuple(request.images),
        warnings=[
            *setup.warnings,
            *doubts(setup.model, request, pooled),
            *filter(None, [placed.warning, _ragged(setup.decoder)]),
        ],
        metadata=_metadata(setup.model, request, settings)
        | _layers(setup.decoder)
        | more
        | {"complete": False, "places": placed.how}
        | _frames(request, placed)
        | _prompt(request),
    )


def doubts(model: Any, request: Request, pooled: bool) -> list[str]:
    """Warnings that something may not be as the user means it; pooled: whether a pool was given."""
    found = [positions.warning(model, request.inputs), _without_pool(model) if pooled else None]
    return [*request.warnings, *filter(None, found)]


def _without_pool(model: Any) -> str | None:
    if reads_elsewhere(model):
        return f"{type(model).__name__} runs each chunk of its answer with the whole prompt: the pool is not used"
    if goes_back(model.config):
        return None
    return (
        f"{type(model).__name__} keeps more than keys and values of its tokens, which a pool does not: it is not used"
    )


def _ragged(decoder: Decoder | None) -> str | None:
    """The warning that arrays of heads hold some that a layer has not."""
    if decoder is None or len(set(decoder.heads)) <= 1:
        return None
    least, most = min(decoder.heads), max(decoder.heads)
    return f"the decoder's layers have {least} to {most} heads: what is given by head is 0 for those that a layer lacks"


def _layers(decoder: Decoder | None) -> dict[str, Any]:
    """Which of the decoder's layers attend, where some do not: those alone have maps."""
    if decoder is None or len(decoder.indices) == decoder.total:
        return {}
    return {"decoder_layers": decoder.total, "attending_layers": decoder.indices}


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


def _frames(request: Request, placed: Layout) -> dict[str, Any]:
    """What the last pictures are, where they are frames of videos."""
    return {"frames": described(placed.clips, request.videos)} if placed.clips else {}


def _prompt(request: Request) -> dict[str, Any]:
    return {} if request.text is None else {"question": request.question, "prompt": request.text}
