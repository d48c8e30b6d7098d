"""How much each token of an answer rests on each word before it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dexar_fast.errors import InputError, NumericalError


@dataclass(frozen=True, eq=False)
class TextRelevance:
    """Beside the image: the text keys that T tokens of an answer rest on.

    Attributes:
        positions: [M] int64, ascending, where the text keys stand in the sequence: the prompt's, then the answer's.
        tokens: the text of each, M of them.
        maps: [T, M], R = sum over layers and heads of relu(S_txt - S_img) * G over text keys (METHOD.md section 3).
        unfiltered_maps: [T, M], sum over layers and heads of G.
    Raises:
        InputError: shapes or types that do not fit. NumericalError: NaN or infinity.
    """

    positions: Tensor
    tokens: list[str]
    maps: Tensor
    unfiltered_maps: Tensor

    def __post_init__(self) -> None:
        arrays = (self.positions, self.maps, self.unfiltered_maps)
        if not all(isinstance(array, Tensor) and array.device.type == "cpu" for array in arrays):
            raise InputError("text relevance must be torch tensors on the CPU")
        if self.positions.dtype != torch.int64 or self.positions.ndim != 1 or self.maps.ndim != 2:
            raise InputError("text relevance must have positions [M] of int64 and maps [T, M]")
        if not ((self.positions >= 0).all() and (self.positions.diff() > 0).all()):
            raise InputError("text relevance must have ascending positions, from 0")
        if self.maps.shape != self.unfiltered_maps.shape or self.maps.shape[1] != len(self.positions):
            raise InputError("text relevance must have maps [T, M] of one shape, M the number of positions")
        if len(self.tokens) != len(self.positions) or not all(isinstance(token, str) for token in self.tokens):
            raise InputError("text relevance must have one text per position")
        if not (self.maps.isfinite().all() and self.unfiltered_maps.isfinite().all()):
            raise NumericalError("text relevance holds NaN or infinity")
