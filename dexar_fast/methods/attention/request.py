"""What the methods of attention share: which layers, the forward of a request, its result."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from dexar_fast.attribution.rows.answer_forward import AnswerForward, Take
from dexar_fast.attribution.rows.matrices import VisualMaps
from dexar_fast.errors import ModelError, reason
from dexar_fast.methods.base import WHOLE_ANSWER, Asked, Maps
from dexar_fast.model.cache import whole_cache
from dexar_fast.model.memory import fitting
from dexar_fast.settings import settings

Layers = tuple[int, ...] | None  # negative from the end; None is all that hold attention


class OfLayers:
    """A method of chosen layers: a frozen dataclass with them in a field `layers`."""

    layers: Layers

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", settings(self.layers).layers)  # as a tuple of ints

    def layers_of(self, count: int) -> list[int]:
        """The chosen ones of `count` that hold attention, in ascending order. Raises InputError for one beyond."""
        return settings(self.layers).layers_of(count)


def all_layers(asked: Asked, name: str) -> list[int]:
    """Every layer, of a model whose layers all attend. Raises ModelError for others, with the name of the method."""
    try:
        whole_cache(asked.model.config)
    except ModelError as error:
        raise ModelError(
            f"method {name!r} follows attention through all layers, and some hand on what they read in another way: "
            f"{reason(error)}"
        ) from error
    return list(range(len(asked.decoder.layers)))


def answer_forward(asked: Asked, layers: list[int], take: Take) -> AnswerForward:
    """The forward of a request, `take` called after the attention of these layers."""
    request = asked.inputs, asked.targets, asked.visual
    return AnswerForward(asked.model, asked.decoder, *request, layers, take, asked.against)


def no_maps(asked: Asked) -> VisualMaps:
    """Maps to add to."""
    return VisualMaps(len(asked.targets), asked.visual, asked.model.device, asked.model.dtype)


def unit_rows(asked: Asked) -> Tensor:
    """e_p at the position p_t of the query that predicts each token: [T, P + T - 1], float32 or better."""
    prompt, tokens = asked.inputs["input_ids"].shape[1], len(asked.targets)
    dtype = torch.promote_types(asked.model.dtype, torch.float32)
    rows = torch.eye(tokens, dtype=dtype, device=asked.model.device)
    return torch.nn.functional.pad(rows, (prompt - 1, 0))


@contextmanager
def in_memory(name: str) -> Iterator[None]:
    """Turns torch's errors of memory into an OutOfMemoryError that names the method."""
    with fitting(f"prompt and answer in one forward for method {name!r}"):
        yield


def maps_of(asked: Asked, token_maps: Tensor, layers: list[int], notes: Sequence[str]) -> Maps:
    """The result of maps [T, N], whose sum is the sequence's map."""
    token_maps = token_maps.cpu()
    return Maps(
        token_maps, token_maps.sum(0), asked.grids, notes=[*notes, WHOLE_ANSWER], diagnostics={"layers": layers}
    )
