"""Judges transformers' loading report: whether a model has the weights of its checkpoint, all and no others."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from dexar_fast.errors import ModelError
from dexar_fast.loading.names import shown

NAMED = 3  # weights in a message
GO_ON = "allow_missing_weights=True (--allow-missing-weights) explains the model as it is"


@dataclass(frozen=True)
class Report:
    """What was wrong with a checkpoint, by the names of weights."""

    missing: list[str]  # by name or size: they are random now
    left_out: list[str]  # weights inside modules of the model that do not take them
    beside: list[str]  # weights that nothing in the model asks for

    @classmethod
    def of(cls, model: nn.Module, info: Mapping[str, Any]) -> Report:
        """From what from_pretrained(output_loading_info=True) tells: it leaves out tied and ignored weights."""
        others = set(info.get("unexpected_keys", ()))
        sizes = [f"{key} ({_size(theirs)} instead of {_size(ours)})" for key, theirs, ours in info["mismatched_keys"]]
        inside = set() if getattr(model, "hf_quantizer", None) else {key for key in others if _is_inside(model, key)}
        return cls(sorted([*info["missing_keys"], *sizes]), sorted(inside), sorted(others - inside))

    def judged(self, name: Any, allowed: bool) -> list[str]:
        """What to warn of.

        Raises:
            ModelError: weights that are not there, or not taken; unless it is allowed.
        """
        faults = [fault.format(names=_names(keys)) for fault, keys in self._faults() if keys]
        if faults and not allowed:
            raise ModelError(f"{str(name)!r} is not all there: {'; '.join(faults)}. Load the whole checkpoint; {GO_ON}")
        if self.beside and not self.missing:
            faults.append(f"nothing in the model takes these weights of the checkpoint: {_names(self.beside)}")
        return [f"weights of {shown(name)!r}: {fault}" for fault in faults]

    def _faults(self) -> list[tuple[str, list[str]]]:
        instead = f" (instead it holds {_names(self.beside)})" if self.beside else ""
        return [
            ("these weights are missing and would be random: {names}" + instead, self.missing),
            ("modules of the model have no place for these weights: {names}", self.left_out),
        ]


def _is_inside(model: nn.Module, key: str) -> bool:
    """Whether a weight belongs to a module that has weights: an adapter, a scale or a bias that it would lack."""
    path = key.split(".")
    for end in range(len(path) - 1, 0, -1):
        try:
            module = model.get_submodule(".".join(path[:end]))
        except AttributeError:
            continue
        return any(True for _ in module.parameters(recurse=False))
    return False


def _names(keys: Collection[str]) -> str:
    first = ", ".join(list(keys)[:NAMED])
    return first if len(keys) <= NAMED else f"{first} and {len(keys) - NAMED} more"


def _size(shape: Collection[int]) -> str:
    return " x ".join(map(str, shape))
