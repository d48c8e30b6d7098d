"""The words before each piece of an answer: those of the prompt, those of the answer, and how much it rests on each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dexar_fast.report import plain_words, words
from dexar_fast.report.words import Pieces
from dexar_fast.results.schema import Result
from dexar_fast.results.text_relevance import TextRelevance

_MOST_NAMED = 3


class Part(NamedTuple):
    """A word of the prompt and the white space around it; or a mark where tokens are no text keys."""

    before: str
    text: str
    after: str
    is_word: bool


@dataclass(frozen=True)
class Earlier:
    """What the U pieces of an answer rest on.

    Attributes:
        prompt: the prompt in reading order, K words and the marks between them.
        rests: [U + 1, K + U] float64, on each word of the prompt and each piece, summed over its tokens; 0 for a piece
            itself and those after it. A piece of several tokens takes the sum of theirs by weight, as its map does; so
            does the whole answer, the last row.
        strongest: for each row the words that it rests on most, three or fewer, each with its value.
    """

    prompt: list[Part]
    rests: NDArray[np.float64]
    strongest: list[list[tuple[str, float]]]


def earlier(explanation: Result, pieces: Pieces, by: str) -> Earlier | None:
    """None where the text relevance was not asked for. The prompt is cut as the answer is."""
    found = explanation.text_relevance
    if found is None:
        return None
    start, positions = _start(explanation, found), found.positions.numpy()
    tokens = words.apart(explanation, found.tokens)
    spans = [span for run in _runs(positions[positions < start]) for span in _cut(tokens, run, by)]
    texts = ["".join(tokens[span.start : span.stop]) for span in spans]
    columns = _columns(positions, spans, pieces.spans, start)
    maps, weights = (each.numpy().astype(np.float64) for each in (found.maps, explanation.token_weights))
    rests = _rests(maps, weights, pieces.spans, columns, len(spans))
    return Earlier(
        prompt=list(_parts(explanation.visual_positions.numpy(), positions, spans, texts, start)),
        rests=rests,
        strongest=[_strongest(row, texts + pieces.texts) for row in rests],
    )


def _start(explanation: Result, found: TextRelevance) -> int:
    """Where the first explained token stands: the last one reads up to the token before it, or no further than the
    prompt where only that counts as text."""
    prompt = explanation.metadata.get("prompt_tokens")
    last = int(found.positions[-1]) if len(found.positions) else -1
    return max(prompt if isinstance(prompt, int) else 0, last + 2 - len(explanation))


def _runs(positions: NDArray[np.int64]) -> list[range]:
    """The keys that stand side by side."""
    cuts = np.flatnonzero(np.diff(positions) != 1) + 1
    return [range(*edges) for edges in pairwise([0, *cuts.tolist(), len(positions)])]


def _cut(tokens: list[str], run: range, by: str) -> list[range]:
    return [run[span.start : span.stop] for span in words.cut(tokens[run.start : run.stop], by)]


def _columns(
    positions: NDArray[np.int64], prompt: Sequence[range], answer: Sequence[range], start: int
) -> NDArray[np.int64]:
    """[M], the column of each text key: that of its word of the prompt, or of its piece of the answer."""
    of_prompt = np.repeat(np.arange(len(prompt)), [len(span) for span in prompt])
    of_answer = np.repeat(np.arange(len(answer)), [len(span) for span in answer])
    return np.concatenate([of_prompt, len(prompt) + of_answer[positions[len(of_prompt) :] - start]])


def _rests(
    maps: NDArray[np.float64],
    weights: NDArray[np.float64],
    spans: Sequence[range],
    columns: NDArray[np.int64],
    prompt: int,
) -> NDArray[np.float64]:
    """R [T, M] of tokens for keys -> `Earlier.rests`, of which `prompt` columns are words of the prompt."""
    rows = [words.merged(maps[span], weights[span]) for span in (*spans, range(len(maps)))]
    sums = np.zeros((prompt + len(spans), len(rows)))
    with np.errstate(over="ignore"):
        np.add.at(sums, columns, np.stack(rows, 1))
    rests = np.nan_to_num(sums.T)
    rests[:-1, prompt:] = np.tril(rests[:-1, prompt:], -1)
    return rests


def _parts(
    visual: NDArray[np.int64], positions: NDArray[np.int64], spans: Sequence[range], texts: Sequence[str], start: int
) -> Iterator[Part]:
    at = 0
    for span, text in zip(spans, texts, strict=True):
        yield from _mark(visual, at, int(positions[span.start]))
        yield Part(*words.shown(text), True)
        at = int(positions[span.stop - 1]) + 1
    yield from _mark(visual, at, start)


def _mark(visual: NDArray[np.int64], first: int, stop: int) -> Iterator[Part]:
    """What stands for the tokens from first to stop, if there are any."""
    seen = int(((visual >= first) & (visual < stop)).sum())
    marks = ["…"] if seen < stop - first else []
    if seen:
        marks.append(f"⟨{plain_words.counted(seen, 'visual tokens')}⟩")
    if marks:
        yield Part(" ", " ".join(marks), " ", False)


def _strongest(row: NDArray[np.float64], texts: Sequence[str]) -> list[tuple[str, float]]:
    best = np.argsort(-row, kind="stable")[:_MOST_NAMED]
    return [(words.shown(texts[k])[1], float(row[k])) for k in best if row[k] > 0]
