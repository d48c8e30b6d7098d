"""What the page's frame shows: an answer that grows, piece by piece, then the report of the whole of it.

The frame holds a page of `dexar_fast.report.page`, and its script draws all maps. What is sent is a state, not a
change, so that a browser that skips some of them misses nothing; what is in the last state already keeps its place in
the lists, so that Gradio sends the difference alone.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from dexar_fast.explanation import Explanation
from dexar_fast.generation.stream import Piece
from dexar_fast.report import words
from dexar_fast.report.page import data, document
from dexar_fast.report.words import Pieces

ASSETS = Path(__file__).parents[1] / "assets"
State = dict[str, Any]
_runs = itertools.count(1)


class Growing:
    """The states of one answer.

    A state is plain JSON: `run`, the number of the answer; `page`, the HTML of the frame; `chips`, the HTML of each
    token so far; `blocks`, for each piece what `report.page.data.encode` says of its tokens; `whole`, what it says of
    the answer so far; `heaviest`, the largest weight.
    """

    def __init__(self, title: str) -> None:
        self._title = title
        self._run = next(_runs)
        self._page = ""
        self._texts: list[str] = []
        self._weights: list[float] = []
        self._blocks: list[State] = []

    def take(self, piece: Piece, so_far: Explanation) -> State:
        """The state with one more piece."""
        if not self._page:
            self._page = page([piece], [self._title], "token")
        pieces = words.pieces(piece, "token")
        self._texts += pieces.texts
        self._weights += pieces.weights.tolist()
        self._blocks.append(_block(piece, pieces))
        chips = document.chips(self._texts, np.array(self._weights), piece.weighted)
        return {
            "run": self._run,
            "page": self._page,
            "chips": [document.chip_html(chip, n == 0) for n, chip in enumerate(chips)],
            "blocks": list(self._blocks),
            "whole": data.encode(so_far, _none(so_far), [], None),
            "heaviest": f"{max(self._weights):.3g}",
        }

    def end(self, whole: Explanation, by: str) -> State:
        """The state of the finished answer: the frame takes what differs from its report."""
        final = page([whole], [self._title], by)
        return {"run": self._run, "page": self._page, "final": final} if self._page else {"page": final}


def page(explanations: Sequence[Explanation], titles: Sequence[str], by: str) -> str:
    """The report of one explanation, or of several side by side, for a frame."""
    return document.render(explanations, titles, by, _beside()).decode()


def _block(piece: Piece, pieces: Pieces) -> State:
    """The numbers of a piece; its tokens are counted from the beginning of the answer."""
    found = data.encode(piece, pieces, [], None)
    for row in found["pieces"]:
        row["tokens"] = [piece.first + token for token in row["tokens"]]
    return found


def _none(explanation: Explanation) -> Pieces:
    """No piece at all, so that the whole answer alone is told."""
    cells, heads = explanation.token_maps.shape[1], explanation.head_weights.shape[1:]
    return Pieces([], [], np.zeros(0), np.zeros((0, cells)), np.zeros((0, *heads)))


@cache
def _beside() -> document.Beside:
    return document.Beside(asset("framed.css"), asset("framed.js"))


def asset(name: str) -> str:
    """The text of a file of the page."""
    return (ASSETS / name).read_text(encoding="utf-8")
