"""Searches by EAGLE's own code, to replay: every picture that it asked about, and what it found."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dexar_fast.methods.eagle.greedy.result import SearchResult
from dexar_fast.methods.eagle.search import search

FILE = Path(__file__).parents[1] / "methods" / "eagle" / "reference" / "searches.npz"


@dataclass(frozen=True)
class Case:
    """One search of theirs. `fields` has their names."""

    name: str
    fields: dict[str, Any]

    def __getitem__(self, field: str) -> Any:
        return self.fields[field]

    @property
    def regions(self) -> int:
        return len(self["order"])

    @property
    def is_exact(self) -> bool:
        return "arg_search_scope" not in self.fields

    def probabilities(self, revealed: Tensor) -> Tensor:
        """What their model said of these pictures. KeyError for a picture that their search did not ask about."""
        return torch.from_numpy(np.stack([self._table[row.tobytes()] for row in np.packbits(revealed.numpy(), axis=1)]))

    @cached_property
    def _table(self) -> dict[bytes, Any]:
        return dict(zip((row.tobytes() for row in self["masks"]), self["probabilities"], strict=True))

    @cached_property
    def found(self) -> SearchResult:
        """What our search finds with their settings, over their answers."""
        knobs: dict[str, Any] = {"lambda1": float(self["lambda1"]), "lambda2": float(self["lambda2"])}
        if not self.is_exact:
            names = {"scope": "arg_search_scope", "pending": "arg_pending_samples", "refresh": "arg_update_step"}
            knobs |= {"variant": "efficient"} | {ours: int(self[theirs]) for ours, theirs in names.items()}
        return search(self.probabilities, self.regions, **knobs)


@cache
def arrays() -> dict[str, Any]:
    with np.load(FILE) as file:
        return dict(file)


@cache
def cases() -> dict[str, Case]:
    """All searches by name: subject/case."""
    found: dict[str, dict[str, Any]] = {}
    for key, value in arrays().items():
        name, _, field = key.rpartition("/")
        found.setdefault(name, {})[field] = value
    return {name: Case(name, fields) for name, fields in found.items() if "n_calls" in fields}


def names() -> list[str]:
    return sorted(cases())
