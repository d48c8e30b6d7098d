"""`dexar-fast run` and `dexar-fast merge`: a folder of pictures or a data set in, a table of tokens out.

Heavy imports wait until a command runs, so that `--help` answers at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from dexar_fast.cli import asking, knobs
from dexar_fast.cli.jobs.progress import progress
from dexar_fast.cli.loading import uncollected
from dexar_fast.cli.messages import errors_in_one_line, say
from dexar_fast.cli.options import EXIT_STATUS as USUAL_STATUS
from dexar_fast.cli.options import (
    Against,
    AllowMissingWeights,
    Backend,
    ChunkSize,
    Debug,
    Device,
    Dtype,
    MaxNewTokens,
    Model,
    Out,
    Rank,
    RetryFailed,
    Revision,
    World,
    folder,
)
from dexar_fast.cli.waiting import waiting
from dexar_fast.errors import InputError

if TYPE_CHECKING:
    from dexar_fast.jobs.finished.merging import Merged
    from dexar_fast.jobs.job import Job
    from dexar_fast.jobs.share import Share

SOME_FAILED = 3
RAY = "ray"
ENGINES = ("here", RAY)
EXIT_STATUS = f"{USUAL_STATUS} 3: some items failed or are not finished, and are named on stderr."
NAMED = 20  # failures that are named
Finished = Iterator[tuple[str, str | None]]


def run(
    data: Annotated[
        str,
        typer.Argument(
            help="A folder of pictures, a file of JSON lines or Parquet (columns image, question, answer, id), or a "
            "data set: shapes:count=100, voc:VOCdevkit/VOC2012,split=train."
        ),
    ],
    prompt: Annotated[
        str | None,
        typer.Option(
            help="What to ask about every picture; {question} in it is the item's own. \\[default: {question}]"
        ),
    ] = None,
    model: Model = None,
    revision: Revision = None,
    method: Annotated[
        str,
        typer.Option(
            metavar="NAME[:KNOB=VALUE,...]", help="dex-ar, or another method: eagle:regions=36,variant=exact."
        ),
    ] = "dex-ar",
    against: Against = None,
    batch_size: Annotated[
        int | None,
        typer.Option(min=1, help="Answers explained at once, by dex-ar. \\[default: up to 16, as many as fit]"),
    ] = None,
    out: Out = Path("out"),
    n: Annotated[int | None, typer.Option("--n", min=1, help="Only so many items.")] = None,
    write_answers: Annotated[
        bool, typer.Option("--write-answers", help="Let the model answer where the data set gives an answer, too.")
    ] = False,
    pictures: Annotated[bool, typer.Option("--pictures", help="Also draw each answer's map over its picture.")] = False,
    retry_failed: RetryFailed = False,
    max_new_tokens: MaxNewTokens = None,
    generate: knobs.Generate = None,
    device: Device = None,
    device_map: knobs.DeviceMap = None,
    dtype: Dtype = None,
    chunk_size: ChunkSize = None,
    backend: Backend = "auto",
    allow_missing_weights: AllowMissingWeights = False,
    rank: Rank = None,
    world: World = None,
    engine: Annotated[
        str, typer.Option(help="here, or ray: actors on the cluster that RAY_ADDRESS names, or else on this machine.")
    ] = "here",
    actors: Annotated[
        int | None, typer.Option(min=1, help="Of --engine ray. \\[default: one for each GPU, or one]")
    ] = None,
    debug: Debug = False,
) -> None:
    """Explains every item of a data set. After a kill, the same command goes on.

    Writes OUT/tokens.parquet, which pandas.read_parquet reads, OUT/_report.html, and an explanation each.
    """
    with errors_in_one_line(debug):
        from dexar_fast.jobs.share import share

        asking.silence_bars(model)
        on_ray = _is_ray(engine, actors)
        mine = share(rank, world, {}) if on_ray else share(rank, world)  # the actors share what one process hands out
        options = asking.placement(model, revision, device or device_of(mine, device_map), device_map, dtype)
        options |= {"method": method, "chunk_size": chunk_size, "backend": backend}
        options |= {"allow_missing_weights": allow_missing_weights}
        options |= {} if against is None else {"against": asking.against(against)}
        arguments = knobs.generate_settings(generate, max_new_tokens)
        asked = {"prompt": prompt, "written": write_answers, "batch_size": batch_size, "arguments": arguments}
        more: dict[str, Any] = {"count": n, "pictures": pictures, "share": mine, "retry": retry_failed}
        with _job(data, out, asked, model, options, **more) as job:
            if job.left:
                _finish(job, _on_ray(job, model, options, actors) if on_ray else _here(job, model, options, arguments))
        if mine.world > 1:
            say(f"worker {mine.rank} of {mine.world} is done; when all are: dexar-fast merge", str(out))
        else:
            _merge(out)


def device_of(mine: Share, device_map: str | None) -> str | None:
    """The GPU of a worker that has others beside it."""
    if mine.world == 1 or device_map is not None:
        return None
    import torch

    count = torch.cuda.device_count()
    return f"cuda:{mine.local % count}" if count else None


def _job(data: str, out: Path, asked: dict[str, Any], model: str | None, options: dict[str, Any], **more: Any) -> Job:
    """Cheap checks come before the model is loaded."""
    with waiting("reading the data set"):
        from dexar_fast.data import of
        from dexar_fast.jobs.asked import Asked
        from dexar_fast.jobs.job import Job
        from dexar_fast.loading import fingerprint
        from dexar_fast.methods import registry
        from dexar_fast.methods.dex_ar import DexAr

        alone = not isinstance(registry.of(options["method"]), DexAr)
        where = ("device", "device_map")  # a job may go on elsewhere
        by = {"model": model or "embedded", "model_files": fingerprint.of_folder(model)}
        by |= {name: value for name, value in options.items() if name not in where}
        return Job(of(data), out, Asked(**asked), by, alone=alone, **more)


def _is_ray(engine: str, actors: int | None) -> bool:
    """Raises InputError."""
    if engine not in ENGINES:
        raise InputError(f"--engine is one of {', '.join(ENGINES)}, not {engine!r}")
    if actors is not None and engine != RAY:
        raise InputError("--actors are those of --engine ray")
    return engine == RAY


def _here(job: Job, model: str | None, options: dict[str, Any], arguments: dict[str, Any]) -> Finished:
    with uncollected():
        explainer = asking.explainer(model, options, arguments)
    return job.run(explainer)


def _on_ray(job: Job, model: str | None, options: dict[str, Any], actors: int | None) -> Finished:
    with waiting("loading Ray"):
        from dexar_fast.scale import engine
    return engine.run(job, model, options, actors)


def _finish(job: Job, finished: Finished) -> None:
    try:
        with progress(job.items - job.left, job.items) as advance:
            for _ in finished:
                advance()
    except KeyboardInterrupt:
        say(f"{job.items - job.left} of {job.items} items are finished: the same command goes on")
        raise


def merge(
    out: Annotated[Path, typer.Argument(help="The folder that `run` was given.", parser=folder, metavar="PATH")],
    debug: Debug = False,
) -> None:
    """Writes OUT/tokens.parquet and OUT/_report.html from what all workers of a `run` have finished."""
    with errors_in_one_line(debug):
        _merge(out)


def _merge(out: Path) -> None:
    from dexar_fast.jobs.finished.merging import merge

    with waiting("writing the table"):
        found = merge(out)
    for path in (found.path, found.page):
        Console().print(path, soft_wrap=True, highlight=False)
    _say_missing(found)
    if found.failed or found.finished < found.items:
        raise typer.Exit(SOME_FAILED)


def _say_missing(found: Merged) -> None:
    if found.finished < found.items:
        say(f"{found.items - found.finished} of {found.items} items are not finished: run again, then merge")
    if found.failed:
        say(f"{len(found.failed)} of {found.items} items failed; the column error says why:")
    for name, error in [*found.failed.items()][:NAMED]:
        say(f"{name}: {error}")
    if len(found.failed) > NAMED:
        say(f"and {len(found.failed) - NAMED} more")
