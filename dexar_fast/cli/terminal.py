"""An answer on the terminal while it is written: tokens in the colour of their weight, a progress line under them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group
from rich.live import Live
from rich.style import Style
from rich.text import Text

from dexar_fast.report.drawing import colours

if TYPE_CHECKING:
    from dexar_fast.generation.stream import Piece, Stream


class Writing:
    """Shows pieces as they come, for the length of a `with` block.

    Lines that are full are printed for good; only the last one and the progress line are drawn again. Weights are
    coloured relative to the greatest one so far, as in the report; a method without weights colours nothing.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, auto_refresh=False)
        self._line = Text()
        self._tokens = self._weighty = 0
        self._weighted = True
        self._greatest = 0.0
        self._start = time.monotonic()

    def __enter__(self) -> Writing:
        self._live.__enter__()
        return self

    def __exit__(self, *_: Any) -> None:
        self._live.__exit__(None, None, None)
        if not self._console.is_terminal and self._tokens:  # elsewhere Live ends the line itself
            self._console.line()

    def add(self, piece: Piece) -> None:
        weights = piece.token_weights.tolist()
        self._tokens += len(weights)
        self._weighted = piece.weighted
        self._weighty += sum(weight > 0 for weight in weights)
        self._greatest = max(self._greatest, *weights)
        for token, weight in zip(piece.tokens, weights, strict=True):
            self._line.append(_visible(token), self._style(weight))
        *full, self._line = self._line.wrap(self._console, self._console.width)
        for line in full:
            self._console.print(line)
        self._live.update(Group(self._line, self._progress()), refresh=True)

    def _style(self, weight: float) -> Style:
        if weight == 0 or not self._weighted:
            return Style()
        colour = colours.of(weight / self._greatest)
        return Style(color={"#fff": "white", "#000": "black"}[colours.ink_on(colour)], bgcolor=colours.css(colour))

    def _progress(self) -> Text:
        rate = self._tokens / (time.monotonic() - self._start)
        weighty = f"{self._weighty} with weight, " if self._weighted else ""
        return Text(f"{self._tokens} tokens, {weighty}{rate:.1f} a second", "dim")


def _visible(token: str) -> str:
    """Keeps line ends; spells out whatever else a terminal would obey."""
    return "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in token)


def show(pieces: Stream, console: Console) -> KeyboardInterrupt | None:
    """Shows an answer as it comes; returns the interrupt that ended it when some of it was there."""
    shown = 0
    try:
        with Writing(console) as page, pieces:
            for piece in pieces:
                page.add(piece)
                shown += 1
    except KeyboardInterrupt as interrupt:
        if not shown:
            raise
        return interrupt
    return None
