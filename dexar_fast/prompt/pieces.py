"""The text of each token, as it comes."""

from __future__ import annotations

from typing import Any

LONGEST_CHARACTER = 4  # in tokens, as many as UTF-8 has bytes for it
UNFINISHED = "\ufffd"  # what the first bytes of a character are decoded to


def pieces(tokenizer: Any, ids: list[int]) -> list[str]:
    """The text each token adds to the ones before it; the id itself where there is no tokenizer.

    A character whose bytes are spread over tokens belongs to the last of them.
    """
    running = Pieces(tokenizer)
    texts = [running.add(token) for token in ids]
    return [*texts[:-1], texts[-1] + running.rest()] if texts else []


class Pieces:
    """Does what `pieces` does, one token at a time."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._before: list[int] = []  # decoded again: so the next token keeps the space before it
        self._new: list[int] = []  # tokens whose text is not finished

    def add(self, token: int) -> str:
        """The text that the next token adds; empty while a character lacks bytes."""
        if self._tokenizer is None:
            return str(token)
        self._new.append(token)
        whole = self._tokenizer.decode(self._before + self._new)
        if whole.endswith(UNFINISHED) and len(self._new) < LONGEST_CHARACTER:
            return ""
        text, self._before, self._new = self._added(whole), self._new, []
        return text

    def rest(self) -> str:
        """The text of the last tokens if no more come: a character that lacks bytes."""
        return self._added(self._tokenizer.decode(self._before + self._new)) if self._new else ""

    def _added(self, whole: str) -> str:
        head = self._tokenizer.decode(self._before)
        return whole[len(head) :] if whole.startswith(head) else self._tokenizer.decode(self._new)
