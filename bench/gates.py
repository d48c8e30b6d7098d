"""Correctness before speed: no figure is taken, and none written, while one gate is red."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from bench import rival_methods
from bench.options import Options
from bench.subjects import Subject, subject
from dexar_fast import Explainer
from dexar_fast.profile.shapes import build

# What follows from the gradients; a token weight is a difference of maxima and sums of these, so it is not listed.
COMPARED = ("visual_scores", "text_scores", "head_weights", "token_maps", "unfiltered_token_maps")

BOUND = 1e-5  # norms and rotary embeddings round to float32 whatever the model's dtype


class RedGate(Exception):
    """Something does not compute what it is said to compute."""


@dataclass(frozen=True)
class Gate:
    """One comparison: the largest error found, relative to the largest value, and what it may be."""

    name: str
    error: float
    bound: float

    @property
    def green(self) -> bool:
        return self.error <= self.bound  # False for NaN

    def record(self) -> dict[str, object]:
        return {"name": self.name, "error": self.error, "bound": self.bound, "green": self.green}

    def __str__(self) -> str:
        return f"gate {'green' if self.green else 'RED':5}  {self.name}: {self.error:.2g} (bound {self.bound:.2g})"


def require(gates: Iterable[Gate]) -> None:
    """Raises RedGate unless there are gates and all are green."""
    gates = list(gates)
    if not gates:
        raise RedGate("no gate was checked: no figure is written")
    red = [gate for gate in gates if not gate.green]
    if red:
        raise RedGate("no figure is written:\n" + "\n".join(map(str, red)))


def difference(actual: Tensor, expected: Tensor) -> float:
    """The largest difference over the largest expected value."""
    actual, expected = actual.detach().double().cpu(), expected.detach().double().cpu()
    if actual.shape != expected.shape:
        return float("inf")
    return float((actual - expected).abs().max() / expected.abs().max().clamp_min(1e-30))


def agreement(name: str, actual: Mapping[str, Tensor], expected: object, bound: float) -> Gate:
    """The worst of the arrays in `actual` against the attributes of the same names."""
    errors = [difference(actual[key], getattr(expected, key)) for key in COMPARED]
    return Gate(name, max(errors, key=lambda error: float("inf") if error != error else error), bound)


def same_arrays(options: Options) -> list[Gate]:
    """The explanation of a tiny model in float64 equals three other ways to the same arrays, on the device measured."""
    found = checked(options)
    explanation = Explainer(found.model, chunk_size=2).explain_inputs(found.inputs, target_ids=found.targets)
    rivals = (rival_methods.authors, rival_methods.cached, rival_methods.full_length)
    return [agreement(f"explanation = {rival.__name__}", rival(found), explanation, BOUND) for rival in rivals]


def checked(options: Options) -> Subject:
    """What the gates are checked on."""
    return subject(build("llava-1.5-7b", options.device, torch.float64, tiny=True), tokens=5)
