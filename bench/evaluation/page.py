"""dexar_fast/EVALUATION.md, written from the figures: no number on it is typed, and no claim stands that they deny."""

from __future__ import annotations

import json
from pathlib import Path

from bench import machine
from bench.evaluation import claims, runs
from bench.evaluation.reading import PLAIN, Figures, table
from dexar_fast.jobs.eval import chance_methods, tables

PAGE = machine.ROOT / "dexar_fast" / "EVALUATION.md"
Read = dict[str, Figures]

INTRO = f"""# Evaluation

Which method's map deserves trust, measured beside maps that know nothing. `python -m bench evaluation` writes this page
from `bench/results/evaluation/`; `dexar-fast eval` measures the same on your model and data.

The model is the small one that comes with this package, trained on coloured shapes. The scenes are drawn, the model
has seen none of them, and each is asked one question of the kinds that it was trained on. The right answer is given and
explained. So this shows what the methods and the metrics do where the truth is known. It does not show which method is
best on another model: measure that there.

Chance maps are rows of their own: `random-smooth`, `centre` (a Gaussian), `uniform`. In the tables of maps beside masks
and of wrong answers, `random-smooth` is noise on 4 x 4 cells, upsampled; in those of words that draw on the picture, of
hidden parts and of sanity it is the method of that name, white noise behind a Gaussian blur.
Figures are means over n items with 95 % bootstrap intervals; differences are paired, on the same items. `*` marks what
is better than every chance map that the metric scores (those of sanity refuse uniform maps), all intervals excluding 0,
of {tables.FEWEST} pictures or more; no correction for many comparisons is made. A blank map scores as a uniform one,
and is counted. In the table of sanity each chance map scores 1 whatever the model: a `*` there says little."""

PUBLISHED = {  # DEX-AR's paper, LLaVA-1.5-7B; a random smooth map on the same split, as a re-implementation measured it
    "soft-iou": (17.70, 18.41),
    "iou": (36.34, 25.46),
    "epg": (27.75, 25.24),
}
SETTING = """\
The paper's figures are of LLaVA-1.5-7B on PascalVOC 2012 val: 1449 photographs, the mask the union of all objects,
large and near the centre. Here objects cover {share} of the picture and lie anywhere, and the model is small. The
column of random smooth maps on VOC is what a public re-implementation measured. So compare a column with its own
chance, not with another column. `dexar-fast eval --protocol dex-ar --data voc:ROOT` makes the paper's table."""
EAGLE = """\
EAGLE searches for the regions that do what insertion and deletion measure, so these favour it by construction. Each of
its maps takes hundreds of forwards; it is measured on these items alone. The areas of perturbation are means of ratios:
a few items with high ones move them. Beside masks, on the same items:"""
MORE = """\
The same metrics on fewer scenes, as most of these methods take many forwards or backwards a token. Methods that hide
parts are favoured by what hides parts, too, and give regions, not patches. `igos++` found the answers' maps alone, so
its words are blank; `captum` is its ShapleyValueSampling."""
CORRECTIONS = """\
The scenes of this table are crowded: up to six objects, some of them alike, which the model was not trained on. It
answers by itself, and many of its answers are wrong. EAGLE orders the regions for the right answer, and the chance
maps order the same regions; the last ones are hidden until the model says what is right. An answer that is right as it
is counts 0, one that nothing puts right counts 1."""
ALONE = """\
`obj-iou` and `f1-iou` were measured when each phrase still counted alone. By now the words that name one object, such
as its colour and its shape, are merged by the better, as TAM has it. The next run will give other figures, mostly
higher ones, to chance maps, too."""
BESIDE_MASKS = ("epg", "iou", "pointing", "word-epg", "word-iou")


def read(folder: Path) -> Read:
    """The figures of each evaluation, by name. Raises FileNotFoundError."""
    return {name: Figures(json.loads((folder / f"{name}.json").read_text())) for name in runs.SCENES}


def written(found: Read) -> str:
    """The page."""
    maps, hiding, checks = (found[name] for name in ("maps", "hiding", "checks"))
    corrections, more = found["corrections"], found["more"]
    compared = hiding.table(BESIDE_MASKS, [runs.EAGLE, PLAIN, *chance_methods.NAMES])
    sections = {
        "What to take from it": [claims.taken(maps, hiding)],
        f"Maps of answers, n = {maps.items}": _metrics(maps, runs.OF_MAPS),
        f"Maps of words, n = {maps.row('word-epg')['n']}": _metrics(maps, runs.OF_WORDS),
        f"Which words draw on the picture, n = {maps.row('token-ratio')['n']}": [
            *_metrics(maps, runs.OF_TOKENS),
            ALONE,
        ],
        f"Hiding parts of the picture, {_count(hiding, 'hiding')}": [
            *_metrics(hiding, runs.OF_HIDING),
            EAGLE,
            compared,
        ],
        f"Gradients and hidden parts, {_count(more, 'more')}": [
            more.table(runs.OF_MAPS),
            more.table(runs.OF_WORDS),
            more.table(runs.OF_MORE),
            claims.at_chance(more, runs.OF_MAPS),
            MORE,
        ],
        f"Wrong answers, {_count(corrections, 'corrections')}": [
            CORRECTIONS,
            *_metrics(corrections, runs.OF_CORRECTIONS),
        ],
        f"Sanity and stability, {_count(checks, 'checks')}": [checks.table(runs.OF_SANITY), claims.sanity(checks)],
        "Where DEX-AR loses": [claims.losses(maps), claims.losses(hiding)],
        "The filters": [claims.head_filter(maps, found["shape-words"]), claims.token_filter(maps)],
        "Beside the published figures": _published(maps),
    }
    texts = [f"## {title}\n\n" + "\n\n".join(parts) for title, parts in sections.items()]
    return "\n\n".join([INTRO, *texts, _source(found)]) + "\n"


def _metrics(found: Figures, metrics: tuple[str, ...]) -> list[str]:
    about = "\n".join(f"- {found.head(each)}: {found.row(each)['about']}." for each in metrics)
    return [about, found.table(metrics), claims.at_chance(found, metrics)]


def _published(maps: Figures) -> list[str]:
    rows = [
        [metric, f"{paper:.2f}", f"{chance:.2f}", maps.percent(metric, PLAIN), maps.percent(metric, "random-smooth")]
        for metric, (paper, chance) in PUBLISHED.items()
    ]
    heads = ["%", "paper, DEX-AR", "VOC, random smooth", "here, DEX-AR", "here, random smooth"]
    share = f"{maps.value('epg', 'uniform'):.0%}".replace("%", " %")
    return [table(heads, rows), SETTING.format(share=share), claims.published(PUBLISHED)]


def _count(found: Figures, name: str) -> str:
    """n, and how many were asked for where fewer are finished."""
    due = runs.SCENES[name]
    return f"n = {found.items}" + (f" of {due}" if found.items < due else "")


def _source(found: Read) -> str:
    versions, dates = found["maps"].versions, sorted({each.date for each in found.values()})
    return f"torch {versions['torch']}, transformers {versions['transformers']}; {', '.join(dates)}; seed 0."
