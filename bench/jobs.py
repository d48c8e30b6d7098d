"""What a job over many pictures costs, beside a loop of explain(); and what a worker or Ray adds to an item.

- 200 Shapes pictures in files, described by the embedded model: `run` in batches, everything written, and its table;
  `alone`, the same with --batch-size 1; `loop` of explain(), which writes nothing.
- Seconds an item, behind the first results, by "relevancy", which takes 50 ms and more: a `loop` of explain();
  `worker`, one process of a job and its merge; `ray`, one actor. All on one thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from bench.gates import Gate
from bench.groups import Benchmark, Group, timed
from bench.options import Options
from bench.timing import Job as Timed
from dexar_fast import Explainer
from dexar_fast.data import DataSet, read
from dexar_fast.jobs.asked import Asked
from dexar_fast.jobs.finished.merging import merge
from dexar_fast.jobs.job import Job
from dexar_fast.scale import engine

PROMPT, PICTURES, ITEMS = "Describe the image.", 200, 40
SLOW = "relevancy"
STARTED = 4  # results behind which the time of an item counts
Jobs = dict[str, Callable[[], float]]


def pictures(folder: Path, count: int) -> DataSet:
    """Shapes scenes as PNG files."""
    shown: dict[str, object] = {}
    for item in read("shapes", count=count):
        name = item.id.rpartition("-")[0]
        if name not in shown:
            shown[name] = item.image.save(folder / f"{name}.png")  # type: ignore[union-attr]
    return read("folder", folder)


def run(explainer: Explainer, data: DataSet, batch_size: int | None = None) -> bytes:
    """A whole job in a new folder; its table."""
    with TemporaryDirectory() as out:
        with Job(data, out, Asked(PROMPT, batch_size=batch_size), {}) as job:
            list(job.run(explainer))
        return merge(out).path.read_bytes()


def loop(explainer: Explainer, data: DataSet) -> Iterator[object]:
    for item in data:
        yield explainer.explain(item.image, PROMPT)


def whole(options: Options, data: DataSet) -> Group:
    """The job over the loop."""
    explainer = Explainer.from_pretrained()
    jobs = [
        Timed("run", "run: batches, explanations and table written", lambda: run(explainer, data)),
        Timed("alone", "run --batch-size 1", lambda: run(explainer, data, 1)),
        Timed("loop", "explain(), one after the other; nothing is written", lambda: list(loop(explainer, data))),
    ]
    parameters = {"kind": "run", "model": "embedded", "pictures": len(data)}
    return timed("run over pictures", parameters, jobs, rounds=options.rounds_of(5), floor="run")


def seconds_each(found: Iterable[object], count: int) -> float:
    """Seconds an item, behind the first ones."""
    times = [time.perf_counter() for _ in found]
    assert len(times) == count
    return (times[-1] - times[STARTED - 1]) / (count - STARTED)


def worker(explainer: Explainer, data: DataSet) -> float:
    """Seconds an item of a job, its part of the merge included."""
    with TemporaryDirectory() as out:
        with Job(data, out, Asked(PROMPT), {}, alone=True) as job:
            each = seconds_each(job.run(explainer), len(data))
        start = time.perf_counter()
        merge(out)
        return each + (time.perf_counter() - start) / len(data)


def on_ray(data: DataSet) -> float:
    """Seconds an item of a job on one actor."""
    with TemporaryDirectory() as out, Job(data, out, Asked(PROMPT), {}, alone=True) as job:
        return seconds_each(engine.run(job, None, {"method": SLOW}, actors=1), len(data))


def overhead(options: Options, data: DataSet) -> Group:
    """Seconds an item of a worker and of Ray, over the loop; in turn, on one thread as Ray's actors are."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    explainer = Explainer.from_pretrained(method=SLOW)
    jobs: Jobs = {
        "loop": lambda: seconds_each(loop(explainer, data), len(data)),
        "worker": partial(worker, explainer, data),
        "ray": partial(on_ray, data),
    }
    jobs["loop"]()
    found: dict[str, list[float]] = {name: [] for name in jobs}
    for _ in range(options.rounds_of(5)):
        for name, measure in jobs.items():
            found[name].append(measure())
    torch.set_num_threads(threads)
    about = {
        "loop": "explain()",
        "worker": "a job's worker, its merge included",
        "ray": "the same job on one Ray actor",
    }
    parameters = {"kind": "overhead", "method": SLOW, "items": len(data), "threads": 1}
    return Group("overhead of an item", parameters, about, found, "loop")


def gates(options: Options) -> list[Gate]:
    """A job's table does not depend on what ran before."""
    explainer, data = Explainer.from_pretrained(), read("shapes", count=2)
    tables = [run(explainer, data) for _ in range(2)]
    return [Gate("the same table twice", float(tables[0] != tables[1]), 0.5)]


def groups(options: Options) -> Iterator[Group]:
    with TemporaryDirectory() as folder:
        yield whole(options, pictures(Path(folder), 4 if options.quick else PICTURES))
    with TemporaryDirectory() as folder:
        yield overhead(options, pictures(Path(folder), STARTED + 2 if options.quick else ITEMS))


BENCHMARK = Benchmark("run", "what a job over many pictures costs", gates, groups)
