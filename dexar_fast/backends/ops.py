"""The operations, each on the backend that `plan` gives it.

`head_score` is one call per layer and chunk: gradients of all heads, their scores, the filtered sums (METHOD.md
section 3). `Scoring` holds its knobs, and scores layers together where a GPU's kernels take them so. `kv_append` and
`kv_copy` serve the pool of keys and values.
Nothing here knows about transformers, nothing above it about backends.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dexar_fast.backends import cuda, eager, operators
from dexar_fast.backends.operands import Attention, HeadGroups, KeyLists, Keys, Layer, LayerScores, MapSums, total_range
from dexar_fast.backends.plan import judged, moving, scoring
from dexar_fast.backends.slots import Copies
from dexar_fast.backends.verdicts.case import append_case, copy_case, scoring_case
from dexar_fast.errors import ModelError
from dexar_fast.settings import HeadScore, MapFilter

Pair = tuple[Tensor, Tensor]  # of a layer's keys and values


def kv_append(keys: Tensor, values: Tensor, key: Tensor, value: Tensor, start: int, *, backend: str = "auto") -> None:
    """Writes one layer's states [1, H_kv, Q, D] into a pool's [1, H_kv, slots, D], from slot `start` on.

    Args:
        backend: as `plan` takes it.
    """
    if _appends(key, backend):
        return operators.kv_append(keys, values, key, value, start)
    keys.narrow(2, start, key.shape[2]).copy_(key)
    values.narrow(2, start, value.shape[2]).copy_(value)


def kv_append_all(layers: Sequence[Pair], states: Sequence[Pair], start: int, *, backend: str = "auto") -> None:
    """`kv_append` in several layers; a GPU's kernel takes those that are alike in one launch."""
    if layers and _appends(states[0][0], backend):
        from dexar_fast.kernels import kv_cache  # if triton is missing, moving has raised

        return kv_cache.kv_append_all(layers, states, start)
    for layer, new in zip(layers, states, strict=True):
        kv_append(*layer, *new, start, backend="torch")


def _appends(key: Tensor, backend: str) -> bool:
    """Whether the GPU's kernel appends such states; every step of every layer asks."""
    device = key.device.type
    return device != "cpu" and (
        moving(backend, device)[0].backend == "triton" or judged(backend, append_case("triton", key))
    )


def kv_copy(layers: Sequence[Pair], copies: Copies, *, backend: str = "auto") -> None:
    """Copies slots (from, to, count) in the keys and values of layers of one device.

    Args:
        backend: as `plan` takes it.
    """
    tensors = [tensor for layer in layers for tensor in layer]
    taken = _copies_by(tensors, backend)
    if taken == "cuda":
        return cuda.kv_copy(tensors, copies)
    if taken == "triton":
        from dexar_fast.kernels import kv_cache  # if triton is missing, moving has raised

        return kv_cache.kv_copy(layers, copies)
    for source, target, count in copies:
        for tensor in tensors:
            tensor[:, :, target : target + count] = tensor[:, :, source : source + count]


def _copies_by(tensors: list[Tensor], backend: str) -> str:
    """The backend of kv_copy."""
    planned = moving(backend, tensors[0].device.type)[1].backend
    if planned == "torch" and tensors[0].is_cuda:
        return next((name for name in ("cuda", "triton") if judged(backend, copy_case(name, tensors))), "torch")
    return planned


def head_score(
    u: Tensor,
    value: Tensor,
    keys: Keys | HeadGroups,
    sums: MapSums,
    *,
    head_score: HeadScore = "max",
    map_filter: MapFilter = None,
    grids: tuple[Tensor, ...] = (),
    with_range: bool = False,
    head_filter: bool = True,
    attention: Attention | None = None,
    backend: str = "auto",
) -> LayerScores:
    """Scores one layer's heads and adds their maps to the sums over layers.

        G = relu(<u, V>);  w = relu(S_img - S_txt);  E += sum_h w G;  U += sum_h G      (METHOD.md sections 2 and 3)

    Args:
        u: [C, H, D], the gradient of each target logit with respect to the attention output of each head.
        value: [H_kv, S, D], the values of the layer.
        keys: which positions are visual and text, and attendable; by groups of heads where these read different ones.
        sums: E and U of the layers before, made by `MapSums.zeros` for u and the N visual keys.
        head_score, map_filter: the knobs of METHOD.md section 4.
        grids: [rows, columns] of each grid, the cells as indices of visual keys; the map filter works on these.
        with_range: whether to find the smallest and largest G over the visual keys.
        head_filter: False takes w = 1 in E behind a map filter; without one U is that sum, and E stays as it is.
        attention: multiplies G by the probabilities of this attention, for methods that weigh gradients by them.
        backend: as `plan` takes it.
    """
    if isinstance(keys, HeadGroups):
        return _by_group(u, value, keys, sums, attention, map_filter, head_score, with_range, backend)
    plain = head_score == "max" and map_filter is None
    kernels = _scored_by(u, value, plain, backend, attention is not None)
    if kernels != "torch" and keys.has_image:  # the kernels score image and text together
        return _fused(u, value, keys.lists, sums, attention, with_range)
    weighs = head_filter or map_filter is None
    return eager.head_score(u, value, keys.masked, sums, head_score, map_filter, grids, with_range, attention, weighs)


def _scored_by(u: Tensor, value: Tensor, plain: bool, backend: str, attended: bool = False) -> str:
    """The backend of head_score; plain: "max" without a map filter."""
    planned = scoring(backend, u.device.type, plain)
    if planned == "torch" and u.is_cuda and not attended:
        return "triton" if judged(backend, scoring_case("triton", u, value), plain) else "torch"
    return planned


@dataclass(frozen=True)
class Scoring:
    """`head_score` with its knobs filled in."""

    head_score: HeadScore = "max"
    map_filter: MapFilter = None
    grids: tuple[Tensor, ...] = ()
    with_range: bool = False
    head_filter: bool = True
    backend: str = "auto"

    def of(self, layer: Layer, sums: MapSums) -> LayerScores:
        """The scores of one layer, whose maps are added to the sums."""
        return head_score(layer.u, layer.value, layer.keys, sums, **vars(self))

    def joins(self, layer: Layer) -> bool:
        """Whether a layer is scored in one launch with others: as a GPU's kernels do it."""
        plain, keys = self.head_score == "max" and self.map_filter is None, layer.keys
        if isinstance(keys, HeadGroups) or not keys.has_image:
            return False
        return _scored_by(layer.u, layer.value, plain, self.backend) == "triton"

    def of_all(self, layers: Sequence[Layer]) -> tuple[list[LayerScores], MapSums]:
        """The scores of layers of one kind, all of which `joins` takes, and the sums of their maps."""
        from dexar_fast.kernels import head_score as kernels  # if triton is missing, scoring has raised

        keys = layers[0].keys
        assert isinstance(keys, Keys)
        operands = [(layer.u, layer.value) for layer in layers]
        (*scores, smallest), maps = kernels.head_scores(operands, keys.run or keys.lists, self.with_range)
        extremes = torch.stack([smallest.amin(), scores[0].amax()]) if self.with_range else None
        ranges = [extremes, *[None] * (len(layers) - 1)]  # the first stands for all
        return [LayerScores(*each) for each in zip(*scores, ranges, strict=True)], MapSums(maps)


def _by_group(
    u: Tensor,
    value: Tensor,
    keys: HeadGroups,
    sums: MapSums,
    attention: Attention | None,
    map_filter: MapFilter,
    how: HeadScore,
    with_range: bool,
    backend: str,
) -> LayerScores:
    """The same for one group of heads after another, each with values of its own.

    Raises ModelError for a map filter, whose gain is a median over all heads of a layer.
    """
    if map_filter is not None:
        raise ModelError("map_filter is not defined where the heads of a layer read different keys")
    share = u.shape[1] // len(value)  # query heads to a head of values
    parts = []
    for heads, mine in keys.groups:
        more = None if attention is None else attention.of_heads(heads)
        knobs: Any = {"head_score": how, "with_range": with_range, "attention": more, "backend": backend}
        parts.append(head_score(u[:, heads], value[heads // share], mine, sums, **knobs))
    ranges = [part.range for part in parts if part.range is not None]
    names = ("visual_score", "text_score", "text_winner")
    return LayerScores(
        **{name: torch.cat([getattr(part, name) for part in parts], 1)[:, keys.order] for name in names},
        range=total_range(ranges) if ranges else None,
    )


def _fused(
    u: Tensor, value: Tensor, keys: KeyLists, sums: MapSums, attention: Attention | None, with_range: bool
) -> LayerScores:
    """The same by the kernel of the device."""
    maps = sums.token_map, sums.unfiltered_map
    weights = () if attention is None else (attention.query, attention.key, attention.log_sum_exp, attention.scale)
    visual_score, text_score, winner, smallest = operators.head_score(
        u, value, keys.visual, keys.text, keys.first, keys.last, keys.mask, *maps, *weights, smallest=with_range
    )
    extremes = torch.stack([smallest.amin(), visual_score.amax()]) if with_range else None
    return LayerScores(visual_score, text_score, winner, extremes)
