"""What a method gets and what it gives: a request with its answer in, maps out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

from PIL import Image
from torch import Tensor

from dexar_fast.model.decoder import Decoder
from dexar_fast.vision.grid import Grid


@dataclass(frozen=True)
class Asked:
    """A prompt of P tokens and its answer of T, to a model that is on loan: in eval mode, with our attention."""

    model: Any
    processor: Any  # None where the caller gave the inputs himself
    decoder: Decoder
    inputs: Mapping[str, Any]  # the prompt's, batch 1, on the model's device
    targets: Tensor  # [T] int64, ids of the answer, on the CPU
    images: tuple[Image.Image, ...]  # the upright RGB originals, or none
    visual: Tensor  # [N] int64, where the visual tokens stand in the prompt, on the CPU
    grids: tuple[Grid, ...]  # where they lie in the images; empty where that is unknown


@dataclass(frozen=True)
class Maps:
    """What a method found about T tokens of an answer: values of the N cells of `cells`, float32 or float64, on the CPU."""

    token_maps: Tensor  # [T, N]
    sequence_map: Tensor  # [N]
    cells: tuple[Grid, ...]  # where the values lie: the grids of the visual tokens, or regions of the images
    token_weights: Tensor | None = None  # [T]; None where the method weighs no tokens
    diagnostics: dict[str, Any] = field(default_factory=dict)  # plain JSON


class Method(Protocol):
    """A way to explain an answer. Its knobs are the fields of a frozen dataclass."""

    name: ClassVar[str]

    def maps(self, asked: Asked) -> Maps:
        """Explains the whole answer.

        Raises:
            InputError, ModelError: the method is not defined for this request, or for layers of this model.
        """
        ...
