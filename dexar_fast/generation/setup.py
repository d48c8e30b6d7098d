"""What explaining takes beside a request: a model, its processor, and the knobs."""

from __future__ import annotations

from typing import Any

import torch

from dexar_fast.backends import plan
from dexar_fast.model.decoder import Decoder
from dexar_fast.settings import Settings


class Setup:
    """What the work knows of an `Explainer`."""

    model: Any
    processor: Any  # None: takes inputs and gives ids, no text
    settings: Settings
    chunk_size: int | None  # tokens to explain at once; None: as many as fit
    backend: str
    decoder: Decoder | None  # of the model, once a prompt has run
    warnings: list[str]  # about the model's weights, for every explanation

    def backends(self) -> dict[str, str]:
        """The backend of every operation with these knobs, where the model is now. Raises BackendError."""
        knobs, device = self.settings, torch.device(self.model.device).type
        choices = plan.plan(self.backend, device=device, head_score=knobs.head_score, map_filter=knobs.map_filter)
        return {choice.op: choice.backend for choice in choices}
