"""What the filters left over and what made an explanation, in sentences for people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup, escape

from dexar_fast.report.words import shown
from dexar_fast.results.schema import Result

SHARE_THAT_HIDES = 0.4  # of the heads: a text key that wins so many keeps most tokens from having a weight
_LONGEST_VALUE = 300
_DEX_AR = "dex-ar"  # also where older files do not tell the method
_STILL_0 = (
    "A token may hold such heads and weigh 0: its weight compares the strongest of all heads on the image with the "
    "strongest of all on the text."
)
_UNWEIGHTED = "This method weighs no tokens: the map of each has a scale of its own."
_NO_GRIDS = (
    "There is no map to show: where this model's visual tokens lie in the image is not known. "
    "The weights of tokens and heads hold all the same."
)
_NO_IMAGES = "The image was not kept with this explanation: the map stands alone."
_UNDERLINE = (
    "Underline of a word: how much the chosen token rests on it, the sum over layers and heads of (the head's score on "
    "the text less that on the image, 0 if negative) \N{MULTIPLICATION SIGN} G; thickest where it is largest. For the "
    "whole answer: the sum over tokens of weight \N{MULTIPLICATION SIGN} this, or the plain sum if all weights are 0."
)
_MERGED = "its weight is the highest of theirs, its map the sum of theirs, each times its token's weight"


@dataclass(frozen=True)
class Sentence:
    """A sentence with `{}` where each of `quoted` stands."""

    text: str
    quoted: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.text.format(*(f"`{quote}`" for quote in self.quoted))

    def __html__(self) -> str:
        return escape(self.text).format(*(Markup("<code>{}</code>").format(quote) for quote in self.quoted))


def counted(count: int, things: str) -> str:
    """ "1 token" or "1,200 tokens", of things that are named in the plural."""
    return f"{count:,} {things.removesuffix('s') if count == 1 else things}"


def diagnose(explanation: Result) -> list[Sentence]:
    """How many tokens and heads survive the filters, what to try; what `check` found; then the warnings."""
    return [*_left(explanation), *_evidence(explanation), *_warnings(explanation)]


def _left(explanation: Result) -> list[Sentence]:
    if len(explanation) == 0:
        return [Sentence("The answer holds no tokens.")]
    if not explanation.weighted:
        return [Sentence(_UNWEIGHTED)]
    if explanation.head_weights[0].numel() == 0:
        return []
    return [*_tokens_left(explanation), *_heads_left(explanation)]


def _evidence(explanation: Result) -> list[Sentence]:
    """A file may hold anything in its diagnostics."""
    found = explanation.diagnostics.get("evidence")
    sentence = found.get("sentence") if isinstance(found, dict) else None
    return [_verbatim(sentence)] if isinstance(sentence, str) else []


def numbers(explanation: Result) -> list[str]:
    """What the values of the page are: in the method's own words, or in those of DEX-AR where it made them."""
    notes = explanation.diagnostics.get("notes")
    if isinstance(notes, list):
        return [str(note) for note in notes]
    known = explanation.metadata.get("settings")
    settings = known if isinstance(known, dict) else {}
    against, texts = settings.get("against"), explanation.diagnostics.get("against")
    contrast = [contrastive(against, texts)] if against is not None and texts else []
    return _of_dex_ar(settings) + contrast if settings.get("method", _DEX_AR) == _DEX_AR else []


def contrastive(against: str | int, texts: Sequence[str]) -> str:
    """What the values of tokens against others are; texts: of those others."""
    other = "the runner-up at its place" if against == "runner-up" else repr(texts[0].strip())
    return (
        f"Contrastive: every value is of the token against {other}: of the difference of their two logits or, by "
        "methods that hide parts, of the token's probability where it is one of the two."
    )


def _of_dex_ar(settings: dict[str, Any]) -> list[str]:
    return [
        "G, for a token, a layer, a head and a place: by how much the token's logit grows for each unit of attention "
        "paid to the place; 0 where it shrinks.",
        f"Head weight: {_score(settings)}, 0 if negative; in logits per unit of attention. The weight of a token is "
        "the same difference for the strongest of all heads on the image and the strongest of all on the text.",
        "Map value of a patch: the sum over layers and heads of head weight \N{MULTIPLICATION SIGN} G"
        f"{_rescaled(settings)}. For the whole answer: the sum over tokens of weight \N{MULTIPLICATION SIGN} map value"
        f"{', each map taken from 0 to 1' if settings.get('sequence_norm') == 'token' else ''}.",
        *([_UNDERLINE] if settings.get("text_relevance") else []),
        "These numbers grow with the model's layers, heads and logits: compare them within a page, not between models.",
    ]


def _score(settings: dict[str, Any]) -> str:
    score = settings.get("head_score", "max")
    if score == "max":
        return "the head's highest G on the image less its highest on the text"
    return f"the head's G on the image less its G on the text, each as the head score says ({_value(score)})"


def _rescaled(settings: dict[str, Any]) -> str:
    """What happens to G before it enters the maps."""
    filtered = " after the map filter" if settings.get("map_filter") else ""
    official = ", which the official mode scales to 0 to 1 over all tokens, layers and heads"
    return filtered + (official if settings.get("mode") == "official" else "")


def missing(explanation: Result) -> str:
    """Why the page shows no map, or no image; empty where it shows both."""
    if not explanation.grids:
        return _NO_GRIDS
    return "" if explanation.images else _NO_IMAGES


def merging(by: str, merged: bool) -> str:
    """How the values of several tokens become one chip's (`words.Pieces`); empty where none did."""
    if by == "word":
        return f"A word stands for all of its tokens: {_MERGED} (as it is where all weigh 0)."
    return f"Tokens that make up one character share a chip: {_MERGED} (as it is where all weigh 0)." if merged else ""


def facts(metadata: dict[str, Any]) -> list[tuple[str, str]]:
    """The settings and versions that made an explanation, as (name, value); question and prompt are shown elsewhere."""
    rows: list[tuple[str, str]] = []
    for name, value in metadata.items():
        if name == "seconds" and isinstance(value, dict):
            rows.append(("seconds", ", ".join(f"{stage} {_number(s)}" for stage, s in value.items())))
        elif isinstance(value, dict):
            rows += [(f"{name} / {key}", _value(inner)) for key, inner in value.items()]
        elif name not in ("prompt", "question"):
            rows.append((name, _value(value)))
    return [(str(name).replace("_", " "), value) for name, value in rows]


def _tokens_left(explanation: Result) -> list[Sentence]:
    without, total = int((explanation.token_weights == 0).sum()), len(explanation)
    weightless = f"{_count(without, total)} weight 0{_consequence(without, total)}"
    winner = _winner(explanation)
    if winner is None:
        return [Sentence(f"{weightless}.")]
    if without and _is_hiding(winner):
        text, quoted = _remedy(explanation, winner)
        return [Sentence(f"{weightless}; {text}", quoted)]
    strongest = f"Among the text, {{}} is the strongest for the most heads ({_percent(winner['share'])})."
    return [Sentence(f"{weightless}."), Sentence(strongest, (_name(winner),))]


def _heads_left(explanation: Result) -> list[Sentence]:
    kept = explanation.head_weights > 0
    if not kept.numel():
        return []
    share, count = _percent(kept.float().mean().item()), f"{int(kept.sum()):,} of {kept.numel():,}"
    heads = f"{share} of the heads, counted for each token ({count}),"
    found = [Sentence(f"{heads} found more in the image than in the text; only they make the maps of tokens.")]
    if kept.any() and (explanation.token_weights == 0).any():
        found.append(Sentence(_STILL_0))
    return found


def _count(part: int, total: int) -> str:
    if total == 1:
        return "The only token has" if part else "The only token does not have"
    if part == total:
        return f"All {total} tokens have"
    return f"{part or 'None'} of {'the ' if not part else ''}{total} tokens {'have' if part != 1 else 'has'}"


def _consequence(without: int, total: int) -> str:
    """The map of the whole answer is the sum of the tokens' maps, each times its weight."""
    return ", so the map of the whole answer, their sum by weight, is blank" if without == total else ""


def _winner(explanation: Result) -> dict[str, Any] | None:
    """The key that takes the text score of most heads; a file may hold anything in its diagnostics."""
    winners = explanation.diagnostics.get("text_winners")
    first = winners[0] if isinstance(winners, list) and winners else None
    if not isinstance(first, dict) or not isinstance(first.get("share"), int | float):
        return None
    return first


def _is_hiding(winner: dict[str, Any]) -> bool:
    return winner["share"] >= SHARE_THAT_HIDES


def _remedy(explanation: Result, winner: dict[str, Any]) -> tuple[str, tuple[str, ...]]:
    said = f"the token {{}} wins the text score in {_percent(winner['share'])} of heads"
    settings = explanation.metadata.get("settings")
    used = settings.get("text_set", "all") if isinstance(settings, dict) else "all"
    prompt, position = explanation.metadata.get("prompt_tokens"), winner.get("position")
    in_answer = isinstance(prompt, int) and isinstance(position, int) and position >= prompt
    advice = "text_set=prompt" if in_answer else "text_set=content"
    if used != "all":
        return f"{said}.", (_name(winner),)
    return f"{said}: try {{}}.", (_name(winner), advice)


def _warnings(explanation: Result) -> list[Sentence]:
    warnings = explanation.diagnostics.get("warnings")
    lines = warnings if isinstance(warnings, list) else []
    return [_verbatim(str(line)) for line in lines]


def _verbatim(text: str) -> Sentence:
    return Sentence(text.replace("{", "{{").replace("}", "}}"))


def _name(winner: dict[str, Any]) -> str:
    return shown(str(winner.get("token")))[1]


def _percent(share: float) -> str:
    return f"{share:.0%}".replace("%", " %")


def _number(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else "none" if value is None else str(value)


def _value(value: Any) -> str:
    """Consecutive integers as first to last; what is long is cut."""
    if isinstance(value, list) and len(value) > 2 and value == list(range(len(value))):
        return f"0 to {len(value) - 1}"
    text = ", ".join(map(_number, value)) if isinstance(value, list) else _number(value)
    return text if len(text) <= _LONGEST_VALUE else text[:_LONGEST_VALUE] + "…"
