"""A request with its answer, as a method of explanation takes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

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
    chunk_size: int | None = None  # tokens to explain at once; None: as many as fit
    backend: str = "auto"
    against: Tensor | None = None  # [T] int64, the ids against which the tokens are explained, on the CPU
    exact: bool = True  # whether the grids end where the model's view of an image does; measured ones nearly do
