"""A job of `dexar_fast.jobs` on Ray: actors explain lots, this process keeps the ledger."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from dexar_fast import errors
from dexar_fast.jobs.job import Job, Told
from dexar_fast.jobs.work import Records, Work
from dexar_fast.scale import cluster

Row = Mapping[str, str]
OURS = re.compile(r"dexar_fast\.errors\.(\w+): (.*)")


def run(job: Job, model: str | None, options: Mapping[str, Any], actors: int | None = None) -> Iterator[Told]:
    """`Job.run` by actors that see the job's folder; one that dies is restarted, and its lot explained again.

    Args:
        model, options: of `Explainer.from_pretrained`, in each actor.
        actors: how many; None is one for each GPU, or one.
    Raises:
        LibraryError: Ray is not installed. Else as `Job.run`.
    """
    found = cluster.ray()
    lots = [{"lot": json.dumps(lot)} for lot in job.lots]
    made = {"work": job.work, "model": model, "options": dict(options)}
    mapped = found.data.from_items(lots, override_num_blocks=len(lots)).map_batches(
        Worker, batch_size=1, fn_constructor_kwargs=made, **cluster.pool(found, actors)
    )
    for row in ours(mapped.iter_rows()):
        yield from job.add(json.loads(row["records"]))


def ours(found: Iterator[Row]) -> Iterator[Row]:
    """The rows; Ray's account of an error of ours in an actor becomes that error again."""
    try:
        yield from found
    except Exception as error:
        last = [line for line in str(error).splitlines() if line.strip()][-1:]
        match = OURS.match(last[0].strip()) if last else None
        if match is None or not hasattr(errors, match[1]):
            raise
        raise getattr(errors, match[1])(match[2]) from error


class Worker:
    """The actor: loads the model once, then explains lots."""

    def __init__(self, work: Work, model: str | None, options: Mapping[str, Any]) -> None:
        from dexar_fast.explainer import Explainer

        self._work, self._explainer = work, Explainer.from_pretrained(model, **options)

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, list[str]]:
        """The records of the lots of a batch, as JSON."""
        return {"records": [json.dumps(self._finish(json.loads(lot))) for lot in batch["lot"]]}

    def _finish(self, lot: list[int]) -> Records:
        return self._work.finish(self._explainer, lot, self._work.read(lot))
