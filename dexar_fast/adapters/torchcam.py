"""torch-cam's DEXAR and TAM over this engine, one level up: a model in, and maps of its shapes and scales out.

    from dexar_fast.adapters.torchcam import DEXAR, TAM      # was: from torchcam.methods import DEXAR, TAM

Their DEXAR takes attention matrices that a backward runs through, and their TAM the last hidden states: what costs the
time lies before them. So these take what their scripts hand to a model, and return what the scripts make of the maps
(`explain_qwen` of scripts/dexar_example.py, without its timings). torch-cam itself is not imported: both classes are in
its repository and in no release up to 0.5.0, whose `overlay_mask` draws these maps.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import Tensor

from dexar_fast.errors import InputError
from dexar_fast.explainer import Explainer
from dexar_fast.explanation import Explanation
from dexar_fast.prompt.inputs import as_ids
from dexar_fast.report.placing import single_grid
from dexar_fast.results.assembly import each_scaled


class Dexar(NamedTuple):
    """Of one answer of T tokens, on the model's device, float32 (float64 for a float64 model).

    Attributes:
        maps: [1, T, height, width], each scaled to [0, 1] on its own; a constant one is zeros.
        weights: [1, T], delta of Eq. 6, not scaled.
        sequence: [1, height, width], the scaled maps by their weights (Eq. 6), scaled to [0, 1].
    """

    maps: Tensor
    weights: Tensor
    sequence: Tensor


class DEXAR:
    """DEX-AR of given answers.

    Args:
        model: any that `Explainer` takes, under any attention implementation.
    """

    def __init__(self, model: Any) -> None:
        self._explainer = Explainer(model, sequence_norm="token")

    def __call__(self, inputs: Mapping[str, Any], answer_ids: Any) -> Dexar:
        """All maps of an answer.

        Args:
            inputs: what the model's processor returns for one prompt whose visual tokens form one grid.
            answer_ids: [1, T].
        Raises:
            InputError: ids of another shape, or visual tokens in more than one grid. Else as
                `Explainer.explain_inputs`.
        """
        found = self._explainer.explain_inputs(inputs, _row(answer_ids))
        device = self._explainer.model.device
        maps, sequence = (_shown(found, values).to(device) for values in (found.token_maps, found.sequence_map))
        return Dexar(maps, found.token_weights[None].to(device), sequence)


class TAM:
    """Token activation maps of given answers. Arguments and errors are those of `DEXAR`.

    The words that explain others are those of the prompt behind the picture and of the answer; equal ids do not explain
    each other.
    """

    def __init__(self, model: Any) -> None:
        self._explainer = Explainer(model, method="tam")

    def __call__(self, inputs: Mapping[str, Any], answer_ids: Any) -> Tensor:
        """[1, T, height, width] float32 on the model's device, each map scaled to [0, 1] on its own."""
        found = self._explainer.explain_inputs(inputs, _row(answer_ids))
        return _shown(found, found.token_maps).to(self._explainer.model.device)


def _shown(found: Explanation, values: Tensor) -> Tensor:
    """[1, ..., height, width] of values [..., N], each map scaled."""
    grid = single_grid(found)
    return each_scaled(values).unflatten(-1, (grid.rows, grid.columns))[None]


def _row(answer_ids: Any) -> Tensor:
    ids = as_ids(answer_ids)
    if ids.ndim != 2 or len(ids) != 1:
        raise InputError(f"answer_ids are [1, tokens], not {list(ids.shape)}")
    return ids[0]
