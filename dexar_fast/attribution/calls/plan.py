"""What to compute over one sequence of prompt and answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from dexar_fast.attribution.sums import Sums
from dexar_fast.attribution.tails.trust import Tails


@dataclass(frozen=True)
class Plan:
    """What to compute over one sequence of P prompt and T target tokens.

    Keys are numbered: first those beside the decoder's own sequence, then this (`BegunPrompt`).
    """

    prompt: int  # P
    layers: list[int]  # indices among the calls of attention
    visual: Tensor  # [N] numbers of keys, on the CPU
    text: Tensor  # [P + T or more, and those beside] bool, on the CPU: True where a key counts as text
    sums: Callable[[], Sums]  # makes what takes the layers of one chunk
    backend: str  # of the tails' element-wise steps
    double_final_norm: bool  # the authors' code norms the last layer's output twice
    inputs: Mapping[str, Any]  # the prompt's
    tails: Tails | None = None  # found before a prompt that runs with its answer
    beside: int = 0  # keys beside the decoder's own sequence
    against: Tensor | None = None  # [T] ids whose logits are taken off those of the targets
    differentiates: bool = True  # False: the sums need no u, and get the attention's output in its place

    @property
    def ends_with_image(self) -> bool:
        """Whether the prompt's last token is an image's."""
        return len(self.visual) > 0 and int(self.visual[-1]) == self.prompt - 1
