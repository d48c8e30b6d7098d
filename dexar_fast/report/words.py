"""An answer cut into what a page shows as one piece: whole characters at least, whole words if asked."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dexar_fast.errors import InputError
from dexar_fast.results.schema import Result

CHOICES = ("token", "word")

_JOINER = "\u200d"  # makes one emoji of two, and one letter shape of two
_NON_JOINER = "\u200c"  # parts two letters within a Persian word
_SKIN_TONES = range(0x1F3FB, 0x1F400)
_TAGS = range(0xE0020, 0xE0080)  # spell out which flag the one before them is
_FLAG_LETTERS = range(0x1F1E6, 0x1F200)
# Scripts that put no space between words: each token stands for itself.
_UNSPACED = (range(0x0E00, 0x1100), range(0x1780, 0x1800), range(0x2E80, 0xAC00), range(0xF900, 0xFB00),
             range(0xFF66, 0xFFA0), range(0x20000, 0x40000))  # fmt: skip
_BIDI_CONTROLS = {*range(0x202A, 0x202F), *range(0x2066, 0x206A)}
_APOSTROPHES = "'\N{RIGHT SINGLE QUOTATION MARK}"
_VISIBLE = {"\n": "↵", "\t": "⇥"}


@dataclass(frozen=True)
class Pieces:
    """The pieces of an answer, U of them, and what each takes from its tokens.

    One token keeps its own values. Of several, the weight is the highest; the map is the sum of theirs, each times its
    token's weight as in Eq. 6 (the plain sum where all weights are 0); a head's weight is its highest.

    Attributes:
        texts: the text of each.
        spans: the tokens of each.
        weights: [U]. maps: [U, N]. heads: [U, L, H]. All float64.
    """

    texts: list[str]
    spans: list[range]
    weights: NDArray[np.float64]
    maps: NDArray[np.float64]
    heads: NDArray[np.float64]


def pieces(explanation: Result, by: str) -> Pieces:
    """The answer in pieces: "token" keeps characters whole, "word" words too.

    Raises:
        InputError: any other value of `by`.
    """
    check(by)
    tokens = _texts(explanation)
    spans = cut(tokens, by)
    weights, maps, heads = (
        values.numpy().astype(np.float64)
        for values in (explanation.token_weights, explanation.token_maps, explanation.head_weights)
    )
    return Pieces(
        texts=["".join(tokens[span.start : span.stop]) for span in spans],
        spans=spans,
        weights=np.array([weights[span].max() for span in spans]),
        maps=np.array([merged(maps[span], weights[span]) for span in spans]).reshape(len(spans), maps.shape[1]),
        heads=np.array([heads[span].max(0) for span in spans]).reshape(len(spans), *heads.shape[1:]),
    )


def answer(explanation: Result) -> str:
    """The text of the whole answer."""
    return "".join(_texts(explanation))


def question(explanation: Result) -> str:
    """What the user asked; of an explanation that does not tell, the whole prompt; empty where neither is known."""
    known = explanation.metadata
    return str(known.get("question") or known.get("prompt") or "").strip()


def check(by: Any) -> None:
    """Raises InputError for an unknown `by`."""
    if not isinstance(by, str) or by not in CHOICES:
        raise InputError(f"by must be 'token' or 'word', not {by!r}")


def cut(tokens: list[str], by: str) -> list[range]:
    """Spans of tokens. A token without text holds the first bytes of a character that a later one completes."""
    text, cursor, start = "".join(tokens), 0, 0
    spans: list[range] = []
    for t, token in enumerate(tokens):
        cursor += len(token)
        last = t + 1 == len(tokens)
        if last or not (token == "" or _is_inside(text, cursor, by)):
            spans.append(range(start, t + 1))
            start = t + 1
    if len(spans) > 1 and not any(tokens[t] for t in spans[-1]):
        spans[-2:] = [range(spans[-2].start, len(tokens))]
    return spans


def shown(text: str) -> tuple[str, str, str]:
    """(white space before, what stands on the chip, white space after); signs for what would be invisible."""
    text = "".join(_shown_character(character) for character in text)
    if not any(_has_ink(character) for character in text):
        signs = "".join(_VISIBLE.get(character, "␣") for character in text) or "∅"
        return "", signs, "\n" * text.count("\n") or text
    core = text.strip()
    start = text.index(core)
    return text[:start], core, text[start + len(core) :]


def touch(before: str, after: str) -> bool:
    """Whether two pieces belong so closely that space between them would tear letters apart."""
    return all(unicodedata.category(character)[0] in "LM" for character in before[-1:] + after[:1])


def direction(text: str) -> str:
    """ "rtl" where the first letter of a text is of a script that runs so, else "ltr"."""
    kinds = (unicodedata.bidirectional(character) for character in text)
    return "rtl" if next((kind for kind in kinds if kind in ("L", "R", "AL")), "L") != "L" else "ltr"


def apart(explanation: Result, tokens: list[str]) -> list[str]:
    """The texts of tokens; numbers, for want of a tokenizer, get a space before each."""
    numbers = [str(i) for i in explanation.token_ids.tolist()]
    return [f" {token}" for token in tokens] if explanation.tokens == numbers else tokens


def _texts(explanation: Result) -> list[str]:
    return apart(explanation, explanation.tokens)


def merged(maps: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """[tokens, N] -> [N]; what float64 cannot hold becomes the largest number that it can."""
    if len(maps) == 1:
        return maps[0]
    with np.errstate(over="ignore", invalid="ignore"):
        return np.nan_to_num(weights @ maps if weights.any() else maps.sum(0))


def _is_inside(text: str, cut: int, by: str) -> bool:
    if not 0 < cut < len(text):
        return False
    return _is_inside_character(text, cut) or (by == "word" and _is_inside_word(text, cut))


def _is_inside_character(text: str, cut: int) -> bool:
    """Whether a cut splits what readers take for one character: accents, joined emoji, skin tones, flags."""
    before, after = text[cut - 1], text[cut]
    if unicodedata.category(after)[0] == "M" or ord(after) in _SKIN_TONES or ord(after) in _TAGS:
        return True
    if _JOINER in (before, after) or after == _NON_JOINER:
        return True
    letters = text[:cut]
    while letters and ord(letters[-1]) in _FLAG_LETTERS:
        letters = letters[:-1]
    return ord(after) in _FLAG_LETTERS and (cut - len(letters)) % 2 == 1


def _is_inside_word(text: str, cut: int) -> bool:
    return _belongs_to_word(text, cut - 1) and _belongs_to_word(text, cut)


def _belongs_to_word(text: str, at: int) -> bool:
    """Whether a letter, digit or accent is there; an apostrophe between letters; a point or comma between digits."""
    around = text[at - 1 : at] + text[at + 1 : at + 2]
    if text[at] in _APOSTROPHES and len(around) == 2:
        return all(_is_letter(character) for character in around)
    if text[at] in ".," and len(around) == 2:
        return around.isdecimal()
    return _is_letter(text[at])


def _is_letter(character: str) -> bool:
    if any(ord(character) in script for script in _UNSPACED):
        return False
    return unicodedata.category(character)[0] in "LNM" or character in ("_", _NON_JOINER)


def _has_ink(character: str) -> bool:
    return not character.isspace() and unicodedata.category(character) != "Cf"


def _shown_character(character: str) -> str:
    """A character as shown: a sign for a control character, for half a character, for one that turns text around."""
    if character < " " and character not in "\n\t":
        return " " if character == "\r" else chr(0x2400 + ord(character))
    hidden = unicodedata.category(character) in ("Cs", "Cc") and character not in "\n\t"
    return "\ufffd" if hidden or ord(character) in _BIDI_CONTROLS else character
