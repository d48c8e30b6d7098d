"""What stands over the pictures of a page."""

from __future__ import annotations

from collections.abc import Sequence

from dexar_fast.report.drawing.fonts import drawable
from dexar_fast.results.schema import Result

_LONGEST = 22

# Byte-level and SentencePiece vocabularies write a space and a newline this way.
_VISIBLE = str.maketrans({"\u2581": " ", "\u0120": " ", "\u010a": "\u21b5", "\n": "\u21b5", "\t": "\u21e5"})


def of(explanation: Result, tokens: Sequence[int], by_weight: bool) -> list[str]:
    """Those of the image, the whole answer and each token; the last of two lines."""
    return ["image", "whole answer", *(_title(explanation, token, by_weight) for token in tokens)]


def left_out(explanation: Result, tokens: Sequence[int]) -> str:
    """Says that these are not all tokens; empty where they are."""
    if len(tokens) == len(explanation):
        return ""
    which = "those of the greatest weight" if explanation.weighted else "the first ones"
    return f"{len(tokens)} of {len(explanation)} tokens: {which}"


def printable(token: str) -> str:
    """A token as a title shows it: short, on one line, in glyphs that an installed font has."""
    shown = token.translate(_VISIBLE).strip() or repr(token.translate(_VISIBLE))
    if len(shown) > _LONGEST:
        shown = shown[: _LONGEST - 1] + "\N{HORIZONTAL ELLIPSIS}"
    return drawable(shown)


def _title(explanation: Result, token: int, by_weight: bool) -> str:
    if not explanation.weighted:
        return printable(explanation.tokens[token])
    weight = float(explanation.token_weights[token])
    consequence = ": nothing shown" if by_weight and weight == 0 else ""
    return f"{printable(explanation.tokens[token])}\nweight {weight:.3g}{consequence}"
