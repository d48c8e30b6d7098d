"""Sentences about figures, each made from them: what they do not show is not said."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from bench.evaluation import runs
from bench.evaluation.reading import ALL_TOKENS, PLAIN, UNFILTERED, Beside, Figures, table

VERBS: dict[Beside, str] = {"worse": "helps in", "better": "hurts in", "alike": "makes no difference that shows in"}
"""What a filter does, by how the map without it is beside the map with it."""
CHANCE_FIRST = """\
- Look at chance first. soft-IoU, IoU and EPG are far from 0 for maps that know nothing, the more so the larger the
  objects are; `explainer.check(explanation)` says of one map whether it beats blind ones."""


def taken(maps: Figures, hiding: Figures) -> str:
    """What a user should take."""
    top = maps.row("word-epg", maps.best("word-epg", maps.real))
    best = [name for name in maps.real if maps.row("word-epg", name)["high"] >= top["low"]]
    lines = [f"- The greatest share of a word's map lies on its object (word-EPG) by {listed(best)}.", _pointing(maps)]
    blind = [name for name in maps.real if not maps.above_chance("epg", name)]
    if blind:
        lines.append(f"- {listed(blind)}: not above chance here (EPG), so nothing follows from these maps.")
    return "\n".join([*lines, _insertion(hiding), CHANCE_FIRST])


def _pointing(maps: Figures) -> str:
    own, chance = (f"{maps.value('word-pointing', name):.0%}" for name in (PLAIN, "random-smooth"))
    text = f"- The brightest cell of a word's DEX-AR map lies on its object in {own} of the items, that of a random map"
    return f"{text} in {chance}.".replace("%", " %")


def _insertion(hiding: Figures) -> str:
    above = [name for name in hiding.real if hiding.above_chance("insertion-sensitive", name)]
    what = "Shown in the order of the map, words that need the picture come back sooner than by chance"
    return f"- {what} for {listed(above)}." if above else f"- {what} for no method."


def at_chance(found: Figures, metrics: Sequence[str]) -> str:
    """Which methods are not shown to be above chance, metric by metric."""
    lines = []
    for metric in (each for each in metrics if not each.endswith("blank")):
        below = [method for method in found.real if not found.above_chance(metric, method)]
        if below:
            lines.append(f"- {metric}: {'all methods' if below == found.real else listed(below)}")
    return "\n".join(["Not shown to be above chance:", "", *lines]) if lines else "All methods are above chance in all."


def losses(found: Figures) -> str:
    """Where another method is better than DEX-AR, the interval of the difference excluding 0."""
    rows = []
    for metric in found.metrics:
        others = [name for name in found.real[1:] if found.beside_plain(metric, name) == "better"]
        if others:
            best = found.best(metric, others)
            cells = [found.cell(metric, PLAIN), f"`{best}`", found.cell(metric, best), listed(others)]
            rows.append([found.head(metric), *cells])
    if not rows:
        return f"In none of these metrics is another method shown to be better (n = {found.items})."
    return table([f"n = {found.items}", f"`{PLAIN}`", "the best", "its figure", f"better than `{PLAIN}`"], rows)


def head_filter(maps: Figures, words: Figures) -> str:
    """What the filter does to each metric of maps, and to the words of shapes."""
    own, without, chance = (words.value("word-epg", name) for name in (PLAIN, UNFILTERED, "uniform"))
    verbs = {"better": "lowers", "worse": "raises", "alike": "does not measurably change"}
    return (
        f"{_ablation(maps, UNFILTERED, 'The head filter')} On words that name shapes alone "
        f"(n = {words.row('word-epg')['n']}) it {verbs[words.beside_plain('word-epg', UNFILTERED)]} EPG: {without:.3f} "
        f"without it, {own:.3f} with it, {chance:.3f} by chance."
    )


def token_filter(maps: Figures) -> str:
    """What the filter does to the map of the answer, and to the paper's ratio."""
    own, without = (maps.value("token-ratio", name) for name in (PLAIN, ALL_TOKENS))
    return (
        f"{_ablation(maps, ALL_TOKENS, 'The token filter')} The attribution on visual words is {own:.2f} times that on "
        f"filler words with it, and {without:.2f} times without it; the paper gives 96.12 and 9.16, of photographs."
    )


def _ablation(maps: Figures, without: str, what: str) -> str:
    kinds: dict[Beside, list[str]] = {kind: [] for kind in VERBS}
    for metric in (*runs.OF_MAPS, *runs.OF_WORDS, *runs.OF_TOKENS):
        kinds[maps.beside_plain(metric, without)].append(metric)
    said = [f"{VERBS[kind]} {', '.join(names)}" for kind, names in kinds.items() if names]
    return f"{what} {'; it '.join(said)}."


def sanity(checks: Figures) -> str:
    """Which maps stay as they are where the weights are others, and how stable they are."""
    kept = [name for name in checks.real if checks.value("weights-random", name) > 0.5]
    least = min(checks.value("stability", name) for name in checks.real)
    return (
        f"With the weights of all layers shuffled, {listed(kept) if kept else 'no method'} keeps more than half of the "
        f"rank correlation. Under small noise in the picture every method keeps at least {least:.3f}; but so does any "
        "map that does not look at the picture, so read the columns together."
    )


def published(figures: Mapping[str, tuple[float, float]]) -> str:
    """Which of the published figures are at or below that of a random smooth map."""
    above = {name: paper - chance for name, (paper, chance) in figures.items() if paper > chance}
    below = [name for name in figures if name not in above]
    points = ", ".join(f"{name} by {each:.2f}" for name, each in above.items())
    return (
        f"Of the paper's figures {listed(below)} is at or below chance, so alone it shows nothing. Above it: {points}."
    )


def listed(names: Iterable[str]) -> str:
    """`a`, `b` and `c`."""
    *most, last = [f"`{name}`" for name in names]
    return f"{', '.join(most)} and {last}" if most else last
