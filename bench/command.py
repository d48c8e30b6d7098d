"""The command line of the benchmarks.

python -m bench                      every CPU benchmark: about half an hour on 2 quiet cores
python -m bench explain memory       some of them
python -m bench --gpu                the GPU suite, on one GPU
python -m bench --quick              everything once, small, to see that it runs: no figures
python -m bench compare A.json B.json
python -m bench evaluation           the figures and the page of dexar_fast/EVALUATION.md, on 2 cores within the hour
python -m bench plot                 the pages' pictures, from the results of this machine
python -m bench tables               the pages' tables, likewise
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from bench import (
    batch,
    cache,
    compare,
    curves,
    explain,
    jobs,
    long_answer,
    machine,
    masked,
    memory,
    methods,
    micro,
    model_types,
    plots,
    results,
    rivals,
    rows,
    scaling,
    serve,
    start,
    tables,
)
from bench.adapters import measuring as adapters
from bench.evaluation import command as evaluation
from bench.gates import RedGate, require
from bench.gpu import suite
from bench.groups import Benchmark, Group, Options, table
from bench.load import LIMIT, Foreign, Load, wait_for_quiet

MODULES = (
    start,
    explain,
    memory,
    rivals,
    scaling,
    micro,
    cache,
    long_answer,
    methods,
    masked,
    curves,
    batch,
    rows,
    model_types,
    jobs,
    adapters,
    serve,
)
CPU = {module.BENCHMARK.name: module.BENCHMARK for module in MODULES}
GPU = {found.name: found for found in suite.BENCHMARKS}
OTHERS: dict[str, Callable[[Sequence[str]], int]] = {
    "compare": compare.main,
    "evaluation": evaluation.main,
    "plot": plots.main,
    "tables": tables.main,
}
REFUSED = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs what the arguments name; 0, or 2 where nothing may be measured."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    if arguments and arguments[0] in OTHERS:
        return OTHERS[arguments[0]](arguments[1:])
    os.environ.setdefault("DEXAR_FAST_VERDICTS", "kept")  # nothing is measured beside what is measured here
    given = _parsed(arguments)
    device = "cuda" if given.gpu and torch.cuda.is_available() else "cpu"
    if given.gpu and device == "cpu" and not given.quick:
        print("no GPU here: torch sees none (--gpu --quick runs the suite's code on tiny models on the CPU)")
        return REFUSED
    load = _load(given)
    if load.too_high and not (given.force or given.quick):
        print(f"the load is {load.before:.2f}, above {LIMIT}: figures would not hold. Try later, or --force")
        return REFUSED
    folder = given.out / machine.slug(machine.gpu() if given.gpu else None)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        TemporaryDirectory(dir=folder).cleanup()
    except OSError as error:
        print(f"cannot write results: {error}")
        return REFUSED
    options = Options(quick=given.quick, rounds=given.rounds, device=device)
    known = GPU if given.gpu else CPU
    try:
        for name in given.names or known:
            run(known[name], options, load, folder)
    except RedGate as red:
        print(red)
        return REFUSED
    return 0


def _load(given: argparse.Namespace) -> Load:
    """As it was told, or as it is."""
    if given.load is not None:
        return Load(given.load, 0.0)
    return wait_for_quiet(0 if given.force or given.quick else given.patience)


def run(benchmark: Benchmark, options: Options, load: Load, folder: Path) -> Path:
    """Gates, groups, file: a benchmark whose gates are red writes nothing.

    What is measured so far lies in a file of its own until the last group: one that is killed leaves that.

    Returns:
        The file.

    Raises:
        RedGate: something does not compute what it should.
    """
    print(f"\n== {benchmark.name}: {benchmark.about}\n", flush=True)
    start, date, foreign = time.perf_counter(), time.strftime("%Y-%m-%d", time.gmtime()), Foreign()
    gates = benchmark.gates(options)
    print(*gates, "", sep="\n")
    require(gates)
    path = folder / f"{benchmark.name}{'.quick' if options.quick else ''}.json"
    part = path.with_name(f"{benchmark.name}.part.json")
    groups: list[Group] = []

    def write(concluded: Benchmark, path: Path) -> None:
        seconds = time.perf_counter() - start
        results.write(results.record(concluded, options, gates, groups, load, foreign.cores(), seconds, date), path)

    for group in benchmark.groups(options):
        groups.append(group)
        print(table(group), flush=True)
        write(replace(benchmark, conclude=lambda groups: {}), part)
    write(benchmark, path)
    part.unlink(missing_ok=True)
    print(f"{path}   ({time.perf_counter() - start:.0f} s)", flush=True)
    return path


def _parsed(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m bench", description=__doc__, formatter_class=_Verbatim)
    parser.add_argument("names", nargs="*", metavar="name", help=f"{', '.join(CPU)}; with --gpu {', '.join(GPU)}")
    parser.add_argument("--gpu", action="store_true", help="the GPU suite")
    parser.add_argument("--quick", action="store_true", help="two rounds of small sizes, stored apart as *.quick.json")
    parser.add_argument("--force", action="store_true", help=f"measure at a load above {LIMIT}; the file says so")
    parser.add_argument("--load", type=float, help="the load before all this began, where what runs here made it since")
    parser.add_argument("--rounds", type=int, help="repeats of every job, instead of each benchmark's own number")
    parser.add_argument("--patience", type=float, default=60.0, help="seconds to wait for a quiet machine [60]")
    parser.add_argument("--out", type=Path, default=results.FOLDER, help="where results go [bench/results]")
    given = parser.parse_args(arguments)
    unknown = sorted(set(given.names) - (GPU if given.gpu else CPU).keys())
    if unknown:
        parser.error(f"no benchmark {', '.join(unknown)}: choose from {', '.join(GPU if given.gpu else CPU)}")
    if given.rounds is not None and given.rounds < 1:
        parser.error("--rounds: at least 1")
    if not given.patience >= 0:
        parser.error("--patience: seconds, at least 0")
    return given


class _Verbatim(argparse.RawDescriptionHelpFormatter):
    """Keeps the lines of the description."""
