"""The part of an answer that is explained: takes what the pass finds, and gives an Explanation at any time."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from dexar_fast.attribution.sums import Attribution, counted
from dexar_fast.backends.operands import total_range
from dexar_fast.errors import InputError
from dexar_fast.explanation import Explanation
from dexar_fast.prompt.pieces import Pieces, pieces
from dexar_fast.results import assembly
from dexar_fast.results.assembly import Chunk, ResultHeader
from dexar_fast.results.shards import Folder, Shards
from dexar_fast.stages import stage

NONE = torch.zeros(0, dtype=torch.long, device="cpu")


class ResultBuilder:
    """The explained tokens of one answer, kept in memory; with a folder, only until they are worth a shard.

    As a context manager it writes what is left at the end, and marks the answer as complete if all went well.
    """

    def __init__(
        self, header: ResultHeader, tokenizer: Any, prompt_ids: Sequence[int], folder: Folder | None = None
    ) -> None:
        self._header = header
        self._tokenizer = tokenizer
        self._ids = list(prompt_ids)  # and those of the answer
        self._prompt = len(self._ids)
        self._pieces = Pieces(tokenizer)
        self._chunks: list[Chunk] = []  # all of them, or those that are not on disk
        self._winners = NONE
        self._text_tokens: list[str] = []  # of what is on disk
        self._range: Tensor | None = None
        self._shards = None if folder is None else Shards(folder, header)
        self._lock = threading.RLock()  # a stream is read while it is written

    def __len__(self) -> int:
        """How many tokens are explained."""
        return len(self._ids) - self._prompt

    def __enter__(self) -> ResultBuilder:
        return self

    def __exit__(self, kind: Any, *_: Any) -> None:
        self._header.metadata["complete"] = kind is None
        self.save()

    def add(self, ids: Tensor, sums: Attribution) -> Chunk:
        """Takes the next tokens [C]; returns them with their texts, and with the range of the answer so far.

        Raises:
            NumericalError: NaN or infinity. FileError: the folder cannot be written.
        """
        with stage("aggregation"):
            assembly.check_finite(sums, self._header.metadata["settings"]["layers"])
        with self._lock, stage("description"):
            tokens = [self._pieces.add(token) for token in ids.tolist()]
            if sums.range is not None:
                self._range = total_range([sums.range] if self._range is None else [self._range, sums.range])
            self._winners = counted([self._winners, sums.text_winners])
            self._ids += ids.tolist()
            self._chunks.append(Chunk(ids.cpu(), tokens, replace(sums, text_winners=NONE)))
            if self._shards is not None and self._shards.is_due(self._chunks[-1]):
                self._save(self._shards)
            return Chunk(ids.cpu(), tokens, replace(sums, range=self._range))

    def save(self) -> None:
        """With a folder, writes everything to disk. Raises FileError."""
        if self._shards is not None:
            with self._lock:
                self._save(self._shards)

    def fields(self, chunks: Sequence[Chunk]) -> dict[str, Any]:
        """The fields of an Explanation of these tokens alone; `chunks` are what `add` returned."""
        chunk = assembly.whole(chunks, "")
        with self._lock:
            return assembly.fields(
                self._header, chunk, self._frequent(chunk.sums.text_winners), self._texts(chunk.sums)
            )

    def explanation(self) -> Explanation:
        """All that is explained so far.

        Raises:
            InputError: nothing is explained yet.
        """
        with self._lock, stage("description"):
            if not len(self):
                raise InputError("no token is explained yet: ask for the explanation once a piece has come")
            if self._shards is not None:
                self._save(self._shards)
                return Explanation.load(self._shards.folder)
            chunk = assembly.whole(self._chunks, self._pieces.rest())
            return Explanation(
                **assembly.fields(self._header, chunk, self._frequent(self._winners), self._texts(chunk.sums))
            )

    def _save(self, shards: Shards) -> None:
        """Writes everything to disk. After an interrupt, `_chunks` may hold what the last call has already written."""
        if shards.finished[1] < len(self):
            chunk = assembly.whole(self._chunks, "")
            shards.add(chunk)
            self._text_tokens = self._texts(chunk.sums)
        self._chunks = []
        shards.index(self._frequent(self._winners), self._pieces.rest(), self._text_tokens)

    def _texts(self, sums: Attribution) -> list[str]:
        """The texts of the text keys, if the sums hold maps over these."""
        return (
            [] if sums.text is None else pieces(self._tokenizer, [self._ids[i] for i in sums.text.positions.tolist()])
        )

    def _frequent(self, winners: Tensor) -> list[dict[str, Any]]:
        return assembly.frequent(winners, lambda i: pieces(self._tokenizer, [self._ids[i]])[0])
