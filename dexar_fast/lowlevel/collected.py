"""What the pass shows of each layer, kept from chunk to chunk."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from dexar_fast.backends.operands import HeadGroups, Keys
from dexar_fast.model.attention import Call

Seen = tuple[Tensor, Tensor, Keys | HeadGroups]  # u [C, H, D], V [H_kv, S, D], and the keys of C queries


class Chunk:
    """Takes the layers of one chunk of C tokens as they come (`attribution.sums.Sums`)."""

    def __init__(self) -> None:
        self.layers: list[Seen] = []
        self.token_maps: Tensor  # [C, 0]: the pass counts tokens by their maps, and here are none

    def layer(self, u: Tensor, call: Call, keys: Keys | HeadGroups) -> None:
        self.layers.append((u.detach(), call.value[0].detach(), keys))

    def settle(self) -> None:
        """Nothing waits."""

    def attribution(self, length: int) -> Chunk:
        self.token_maps = torch.empty(len(self.layers[0][0]), 0)
        return self


class Collected:
    """The chunks of an answer. A later chunk's keys are those of an earlier one and more, by their numbers."""

    def __init__(self, layers: list[int]) -> None:
        self._u: dict[int, list[Tensor]] = {layer: [] for layer in layers}
        self._keys: dict[int, list[Keys | HeadGroups]] = {layer: [] for layer in layers}
        self._value: dict[int, Tensor] = {}
        self._joined: dict[tuple[int, ...], Tensor] = {}  # by the ids of a layer's keys, which layers share

    def take(self, chunks: list[Chunk]) -> None:
        """Takes the next chunk of a batch of one."""
        (chunk,) = chunks
        for layer, (u, value, keys) in zip(self._u, chunk.layers, strict=True):
            self._u[layer].append(u)
            self._keys[layer].append(keys)
            self._value[layer] = value

    def pop(self, layer: int) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """u [T, H, D], V [H_kv, S, D], what is read [T, S] or [T, H, S], and the keys' numbers [S]; once each."""
        keys = self._keys[layer]  # stay, so that no other gets their ids
        u, value = torch.cat(self._u.pop(layer)), self._value.pop(layer)
        same = tuple(map(id, keys))
        if same not in self._joined:
            self._joined[same] = _joined(keys, value.shape[1])
        return u, value, self._joined[same], keys[-1].numbers


def _joined(chunks: list[Keys | HeadGroups], length: int) -> Tensor:
    """What the queries of all chunks read, [T, S]; [T, H, S] where heads differ in any of them."""
    heads = max(len(keys.order) if isinstance(keys, HeadGroups) else 1 for keys in chunks)
    joined = torch.cat([_widened(_by_head(keys, heads), keys.numbers, chunks[-1].numbers, length) for keys in chunks])
    return joined if heads > 1 else joined[:, 0]


def _widened(row: Tensor, numbers: Tensor | None, of_all: Tensor | None, length: int) -> Tensor:
    """[C, H, S] over the S keys of a chunk, as over the `length` keys of the last: new ones may stand in between."""
    if numbers is None or of_all is None:
        return pad(row, (0, length - row.shape[-1]))
    in_order, places = of_all.sort()
    found = row.new_zeros(*row.shape[:-1], length)
    found[..., places[torch.searchsorted(in_order, numbers)]] = row
    return found


def _by_head(keys: Keys | HeadGroups, heads: int) -> Tensor:
    """[C, H, S] of so many heads, or of 1 for all."""
    if isinstance(keys, Keys):
        return keys.attendable[:, None].expand(-1, heads, -1)
    each = [of.attendable[:, None].expand(-1, len(some), -1) for some, of in keys.groups]
    return torch.cat(each, 1)[:, keys.order]
