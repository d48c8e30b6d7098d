"""The part of an answer that a method has explained while it is written."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from dexar_fast.errors import InputError
from dexar_fast.explanation import Explanation
from dexar_fast.generation.asked import Asked
from dexar_fast.methods.base import Maps
from dexar_fast.methods.result import fields_of
from dexar_fast.prompt.pieces import Pieces
from dexar_fast.results.assembly import ResultHeader


class Chunk(NamedTuple):
    """C tokens of an answer and their maps."""

    ids: Tensor  # [C]
    tokens: list[str]
    maps: Tensor  # [C, N]


class HasMaps(Protocol):
    """What the pass made of C tokens."""

    token_maps: Tensor  # [C, N]


class Followed:
    """The explained tokens of one answer, kept in memory. It is a `dexar_fast.generation.scheduler.Record`.

    Args:
        maps: makes the result of maps [T, N] of any of the tokens.
    """

    def __init__(self, header: ResultHeader, asked: Asked, maps: Callable[[Tensor], Maps]) -> None:
        self._header = header
        self._pieces = Pieces(getattr(asked.processor, "tokenizer", None))
        self._maps = maps
        self._chunks: list[Chunk] = []
        self._lock = threading.RLock()  # a stream is read while it is written

    def __len__(self) -> int:
        return sum(len(chunk.ids) for chunk in self._chunks)

    def __enter__(self) -> Followed:
        return self

    def __exit__(self, kind: Any, *_: Any) -> None:
        self._header.metadata["complete"] = kind is None

    def add(self, ids: Tensor, sums: HasMaps) -> Chunk:
        """Takes the next tokens [C]; returns them with their texts."""
        with self._lock:
            tokens = [self._pieces.add(token) for token in ids.tolist()]
            self._chunks.append(Chunk(ids.cpu(), tokens, sums.token_maps.cpu()))
            return self._chunks[-1]

    def fields(self, chunks: Sequence[Chunk]) -> dict[str, Any]:
        """The fields of an Explanation of these tokens alone. Raises ModelError for NaN or infinity."""
        ids, maps = (torch.cat([getattr(chunk, name) for chunk in chunks]) for name in ("ids", "maps"))
        return fields_of(self._header, ids, [text for chunk in chunks for text in chunk.tokens], self._maps(maps))

    def explanation(self) -> Explanation:
        """All that is explained so far. Raises InputError where nothing is, and as `fields`."""
        with self._lock:
            if not self._chunks:
                raise InputError("no token is explained yet: ask for the explanation once a piece has come")
            found = self.fields(self._chunks)
            found["tokens"][-1] += self._pieces.rest()
            return Explanation(**found)

    def save(self) -> None:
        """Nothing: it has no folder."""
