"""`dexar-fast eval`: methods by metrics over a data set, with intervals, chance maps and pictures of cases.

Heavy imports wait until the command runs, so that `--help` answers at once.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from dexar_fast.cli import asking, knobs
from dexar_fast.cli.jobs.progress import progress
from dexar_fast.cli.jobs.run import NAMED, SOME_FAILED, device_of
from dexar_fast.cli.messages import errors_in_one_line, say
from dexar_fast.cli.options import Debug, Device, Dtype, Out, Rank, RetryFailed, World
from dexar_fast.cli.waiting import waiting
from dexar_fast.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable

    from dexar_fast.explainer import Explainer
    from dexar_fast.jobs.eval.plan import Evaluation
    from dexar_fast.jobs.share import Share

EMBEDDED = "embedded"


def evaluate(
    data: Annotated[
        str | None,
        typer.Option(
            help="A data set: shapes:count=100, voc:VOCdevkit/VOC2012,split=val, a folder, or a file of JSON lines or "
            "Parquet. \\[default: shapes]"
        ),
    ] = None,
    methods: Annotated[
        str | None,
        typer.Option(metavar="NAME,...", help="Methods without knobs; the first is what the others are compared with."),
    ] = None,
    method: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME[:KNOB=VALUE,...]", help="A method with knobs. May be given several times."),
    ] = None,
    metrics: Annotated[
        str | None,
        typer.Option(
            metavar="NAME[:fill=FILL],...",
            help="epg, iou, insertion:fill=blur, ..., quantus:PointingGame. \\[default: those of maps beside masks]",
        ),
    ] = None,
    models: Annotated[
        str | None,
        typer.Option(metavar="NAME,...", help="On the Hub, or folders. \\[default: embedded, a small model]"),
    ] = None,
    protocol: Annotated[
        str | None, typer.Option(help="Methods and metrics of a paper's tables: dex-ar, eagle, tam.")
    ] = None,
    prompt: Annotated[str | None, typer.Option(help="What to ask where the data set asks nothing.")] = None,
    n: Annotated[int | None, typer.Option("--n", min=1, help="Only so many items, chosen by the seed.")] = None,
    seed: Annotated[
        int, typer.Option(min=0, help="Of the choice of items, sampled answers, chance maps and intervals.")
    ] = 0,
    device: Device = None,
    device_map: knobs.DeviceMap = None,
    dtype: Dtype = None,
    out: Out = Path("out"),
    retry_failed: RetryFailed = False,
    rank: Rank = None,
    world: World = None,
    debug: Debug = False,
) -> None:
    """Measures methods on data beside chance maps. After a kill, the same command goes on.

    Writes report.html, report.md, figures.json, cases/ and items.jsonl; one of several workers its items alone.
    """
    with errors_in_one_line(debug):
        from dexar_fast.jobs.share import share

        mine = share(rank, world)
        named = {
            "methods": [*_listed(methods), *(method or [])],
            "metrics": _listed(metrics),
            "models": _listed(models),
        }
        _silence_bars(named["models"], protocol)
        given = {"data": data, "prompt": prompt, "n": n}
        placement = asking.placement(None, None, device or device_of(mine, device_map), device_map, dtype)
        with waiting("reading the data set"):
            asked = _asked(protocol, {**named, **given}, seed, placement)
        load = _measure(asked, out, retry_failed, mine)
        if mine.world == 1:
            _report(asked, out, load)
        else:
            say(f"worker {mine.rank} of {mine.world} is done; when all are, one process alone writes the report")


def _listed(text: str | None) -> list[str]:
    """Names between commas."""
    return [*filter(None, map(str.strip, (text or "").split(",")))]


def _silence_bars(models: list[str], protocol: str | None) -> None:
    """Where nothing is downloaded."""
    if not models and protocol is None:
        asking.silence_bars(None)
    if len(models) == 1:
        asking.silence_bars(None if models[0] == EMBEDDED else models[0])


def _asked(protocol: str | None, given: dict[str, Any], seed: int, placement: dict[str, Any]) -> Evaluation:
    """What the protocol says, and in its place what is given. Raises InputError."""
    from dexar_fast import data
    from dexar_fast.jobs.eval import protocols
    from dexar_fast.jobs.eval.plan import Evaluation

    chosen = (protocols.read(protocol) if protocol else {}) | {name: value for name, value in given.items() if value}
    spelled = chosen.pop("data", None) or "shapes"
    if protocol and given["data"] is None:
        raise InputError(f"protocol {protocol!r} is of data that you have: name them with --data")
    texts: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in chosen.items()}
    return Evaluation(data.of(spelled), spelled, seed=seed, placement=tuple(placement.items()), **texts)


def _measure(asked: Evaluation, out: Path, retry: bool, mine: Share) -> Callable[[str], Explainer]:
    """Runs what is left of a share; gives what loads a model, with the last one loaded."""
    from dexar_fast.jobs.eval.running import Models, run

    load = Models(asked).load
    steps = run(asked, out, load, retry, mine)
    with progress(*next(steps)) as advance:
        for _ in steps:
            advance()
    return load


def _report(asked: Evaluation, out: Path, load: Callable[[str], Explainer]) -> None:
    """Writes the reports, and says what failed."""
    from dexar_fast.jobs.eval import report
    from dexar_fast.jobs.eval.running import finished

    with waiting("writing the report"):
        found = report.write(asked, finished(asked, out), out, load)
    for name in (report.PAGE, report.MARKDOWN, report.FIGURES):
        Console().print(out / name, soft_wrap=True, highlight=False)
    failed = report.failures(found)
    if failed:
        _say(failed)
        raise typer.Exit(SOME_FAILED)


def _say(failed: list[str]) -> None:
    for line in failed[:NAMED]:
        say(line)
    if len(failed) > NAMED:
        say(f"and {len(failed) - NAMED} more: the report lists them")
