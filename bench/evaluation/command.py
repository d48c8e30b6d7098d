"""`python -m bench evaluation`: makes the figures, then the page. What a killed run has finished is not made again."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from bench import machine, results
from bench.evaluation import page, runs
from dexar_fast.jobs.eval import running
from dexar_fast.jobs.eval.figures import figures
from dexar_fast.jobs.eval.running import Models, run

WORK = machine.ROOT / "out" / "evaluation"
FOLDER = results.FOLDER / "evaluation"


def main(arguments: Sequence[str]) -> int:
    """Runs what is left to do of every evaluation, and writes its figures and the page; 0."""
    parser = argparse.ArgumentParser("python -m bench evaluation", description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*runs.SCENES, []], help=", ".join(runs.SCENES))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--finished", action="store_true", help="run nothing: write what earlier runs have finished")
    parser.add_argument("--work", type=Path, default=WORK, help="where finished items are kept [out/evaluation]")
    given = parser.parse_args(arguments)
    torch.set_num_threads(given.threads)
    for name in given.names or runs.SCENES:
        write(name, given.work / name, given.finished)
    results.write_text(page.written(page.read(FOLDER)), page.PAGE)
    return 0


def write(name: str, work: Path, finished: bool) -> None:
    """The figures of one evaluation, of all items or of those that are finished."""
    asked = runs.asked(name)
    for done, items in [] if finished else run(asked, work, Models(asked).load):
        print(f"{name}: {done} of {items}", flush=True)
    found = figures(asked, running.finished(asked, work)) | {
        "versions": machine.versions(),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }
    results.write_text(lines(found), FOLDER / f"{name}.json")


def lines(found: dict[str, Any]) -> str:
    """JSON with a line for each figure, so that what changes shows in a diff."""
    (model,) = found["models"]
    marked, rows = {**found, "models": [{}]}, {}
    for key, value in model.items():
        rows[f"@{key}@"] = ",\n".join(map(json.dumps, value)) if isinstance(value, list) else json.dumps(value)
        marked["models"][0][key] = [f"@{key}@"] if isinstance(value, list) else f"@{key}@"
    text = json.dumps(marked, indent=1)
    for mark, row in rows.items():
        text = text.replace(f'"{mark}"', row)
    return text + "\n"
