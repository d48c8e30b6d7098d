"""What explaining takes beside a request: a model, its processor, and the knobs."""

from __future__ import annotations

from typing import Any

import torch

from dexar_fast.backends import plan
from dexar_fast.backends.judging.deciding import decide_later
from dexar_fast.model.decoder import Decoder
from dexar_fast.model.lending.pickling import picklable, register
from dexar_fast.settings import Settings


class Setup:
    """What the work knows of an `Explainer`."""

    model: Any
    processor: Any  # None: takes inputs and gives ids, no text
    settings: Settings
    chunk_size: int | None  # tokens to explain at once; None: as many as fit
    backend: str
    against: str | int | None  # what tokens are explained against; see `dexar_fast.methods.contrast`
    decoder: Decoder | None  # of the model, once a prompt has run
    elsewhere: bool  # whether the model may read its image elsewhere than among the prompt's tokens
    warnings: list[str]  # about the model's weights, for every explanation

    def __getstate__(self) -> dict[str, Any]:
        """For another process: with the model as it is, without what was found out about it. Raises InputError."""
        return vars(self) | {"model": picklable(self.model), "decoder": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        register(self.model)

    def backends(self) -> dict[str, str]:
        """The backend of every operation with these knobs, where the model is now. Raises BackendError.

        What earlier explanations lacked a verdict on is decided in the background, for later processes.
        """
        decide_later()
        knobs, device = self.settings, torch.device(self.model.device).type
        choices = plan.plan(self.backend, device=device, head_score=knobs.head_score, map_filter=knobs.map_filter)
        return {choice.op: choice.backend for choice in choices}
