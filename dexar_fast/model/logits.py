"""Which positions' logits a forward computes, for models that know the argument: one row reads the whole head."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dexar_fast.model.modules import parameters

ARGUMENT = "logits_to_keep"


def last_logits(model: Any) -> dict[str, Any]:
    """The argument that keeps the last position's logits only."""
    return {ARGUMENT: 1} if _annotation(model) is not None else {}


def without_logits(model: Any) -> dict[str, Any]:
    """The argument that spares a forward its logits, or all but the last: 0.25 GB at 7B."""
    if "Tensor" not in (_annotation(model) or ""):
        return last_logits(model)
    return {ARGUMENT: torch.empty(0, dtype=torch.long, device=model.device)}


def chosen_logits(model: Any, rows: Tensor, length: int) -> tuple[dict[str, Any], Tensor]:
    """The argument for the logits of some rows [n] of `length`, and where they then stand among those computed."""
    annotation = _annotation(model)
    if annotation is None:
        return {}, rows
    if "Tensor" in annotation:
        return {ARGUMENT: rows}, torch.arange(len(rows), device=rows.device)
    first = int(rows.min())
    return {ARGUMENT: length - first}, rows - first


def _annotation(model: Any) -> str | None:
    known = parameters(model.forward).get(ARGUMENT)
    return None if known is None else str(known.annotation)
