"""Removes each mask, bound and tail of the kernels in turn: `mutations.py [part of a file's name]`.

Each mutant of mutants.py is put in place of the kernel in a run of the kernel's own tests. One that no test notices is
printed, and the status is 1. Mutants run side by side, one a core, each in a fork of this process, which has imported
already what their tests need.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from importlib.util import module_from_spec, spec_from_file_location
from io import StringIO
from itertools import islice
from pathlib import Path

os.environ["TRITON_INTERPRET"] = os.environ["OMP_NUM_THREADS"] = "1"
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import emulated
import hypothesis.strategies  # noqa: F401  what the tests import, once, before the forks
import pytest
import torch._dynamo  # noqa: F401
import triton.runtime.interpreter  # noqa: F401
from mutants import (
    AMX,
    CPP,
    CUDA,
    HALF,
    IN_BF16,
    IN_CUDA,
    IN_TAIL,
    IN_TRITON,
    LANES,
    LAUNCHER,
    LAYERS,
    MAPS,
    MOVES,
    PAIRS,
    PARTS,
    ROOT,
    ROWS,
    SCORE,
    SIMD,
    TAIL,
    TAIL_TRITON,
    THREADS,
    TILE,
    TYPES,
    Mutation,
)

SCORES, TAILS = "csrc/cpu/head_score_portable.cpp", "csrc/cpu/tail_portable.cpp"
UNITS = dict.fromkeys((TILE, LANES, TYPES, SIMD, HALF), SCORES) | {PAIRS: AMX, ROWS: TAILS}  # what is compiled again
SANITIZE = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
SANITIZED = {  # the program that the sanitizers run
    **dict.fromkeys((TILE, LANES, TYPES, PAIRS, AMX, SIMD, HALF, THREADS), "sanitized"),
    **dict.fromkeys((ROWS, TAIL), "sanitized_tail"),
}
BESIDE = "not sanitizers and not registered and not compiled"
CPP_TESTS = {
    "sanitized": ["tests/backends/test_kernels.py", "-k", f"{BESIDE} and not torch and not reaches and not cpu_has"],
    "sanitized_tail": [
        "tests/backends/test_tail_kernels.py",
        "-k",
        f"{BESIDE} and not of_torch and not of_the_plan and not left and not anything",
    ],
}
BF16_TESTS = [
    "tests/backends/test_bf16_instructions.py",
    "-k",
    "not older and not extension and not emulation and not 1025",
]
SCORING_TESTS = ["tests/support/interpreted.py", "tests/support/interpreted_layers.py"]
TRITON_TESTS = {  # without the slowest cases, which show nothing more
    **{
        file: [*SCORING_TESTS, "-k", "not 1025 and not 130 and not (in_parts and 70)"]
        for file in (LAYERS, PARTS, SCORE, MAPS, LAUNCHER)
    },
    MOVES: ["tests/support/interpreted_kv_cache.py", "-k", "not many"],
    TAIL_TRITON: ["tests/support/interpreted_tail.py", "-k", "not 4096 and not 130"],
}
CUDA_TESTS = ["tests/backends/test_cuda.py", "-k", "copied"]
SURVIVED, KILLED, BROKEN = 0, 1, 3
SECONDS = 240  # a mutant that runs longer is killed


@dataclass(frozen=True)
class Workshop:
    """The objects that a mutant is linked with, in which the instructions of bfloat16 are emulated."""

    folder: Path

    @classmethod
    def furnished(cls, folder: Path) -> Workshop:
        shop = cls(folder)
        for path in (*emulated.kernels(), *emulated.MODULE):
            shop.compile(path, False, folder / f"{path.stem}.o")
        for name in set(SANITIZED.values()):
            shop.compile(ROOT / "tests" / "support" / f"{name}.cpp", True, folder / f"{name}.o")
        return shop

    def compile(self, source: Path, sanitized: bool, output: Path) -> None:
        """Headers beside the output come first."""
        flags = [*emulated.FLAGS, f"-I{output.parent}", *emulated.IN_SOFTWARE, *emulated.PYTHON]
        kind = SANITIZE if sanitized else []
        subprocess.run(["g++", *flags, *kind, "-c", str(source), "-o", str(output)], check=True)

    def program(self, mutation: Mutation, folder: Path) -> Path:
        """The mutant linked in `folder`, as the sanitizers' program or as an extension module."""
        sanitized, unit = mutation.sanitized, Path(UNITS.get(mutation.file, mutation.file))
        mutant = folder / "cpu" / Path(mutation.file).name
        mutant.parent.mkdir()
        mutant.write_text(mutation.source())
        self.compile(mutant if mutation.file == str(unit) else ROOT / unit, sanitized, folder / "mutant.o")
        programs, of_python = set(SANITIZED.values()), [path.stem for path in emulated.MODULE]
        left_out = (unit.stem, *((programs - {SANITIZED[mutation.file]}).union(of_python) if sanitized else programs))
        others = [str(path) for path in sorted(self.folder.glob("*.o")) if path.stem not in left_out]
        program = folder / "_C.so"
        kind = SANITIZE if sanitized else ["-shared"]
        subprocess.run(
            ["g++", *emulated.FLAGS, *kind, *others, str(folder / "mutant.o"), "-o", str(program)], check=True
        )
        return program


def survives(shop: Workshop, mutation: Mutation) -> bool:
    """Whether the tests pass all the same."""
    with tempfile.TemporaryDirectory(dir=shop.folder) as name:
        folder = Path(name)
        if mutation.file in TRITON_TESTS:
            mutant = folder / "mutant.py"
            mutant.write_text(mutation.source())
            return passes(f"dexar_fast.kernels.{Path(mutation.file).stem}", mutant, TRITON_TESTS[mutation.file])
        if mutation.file == CUDA:
            os.environ["DEXAR_FAST_KV_COPY"] = str(folder / "mutant.cu")
            (folder / "mutant.cu").write_text(mutation.source())
            return run(CUDA_TESTS)
        program = shop.program(mutation, folder)
        if mutation.sanitized:
            return subprocess.run([program], capture_output=True, timeout=60).returncode == 0
        if mutation.file in (PAIRS, AMX):
            os.environ["DEXAR_FAST_EMULATED"] = str(program)
            return run(BF16_TESTS)
        return passes("dexar_fast._C", program, CPP_TESTS[SANITIZED[mutation.file]])


def passes(name: str, mutant: Path, tests: Sequence[str]) -> bool:
    """Whether tests pass with the mutant for the module of that name; in this process, which must end afterwards."""
    parent, _, last = name.rpartition(".")
    __import__(parent)
    spec = spec_from_file_location(name, mutant)
    assert spec is not None and spec.loader is not None
    module = sys.modules[name] = module_from_spec(spec)
    spec.loader.exec_module(module)
    setattr(sys.modules[parent], last, module)
    return run(tests)


def run(tests: Sequence[str]) -> bool:
    """Whether tests pass, in this process."""
    with redirect_stdout(StringIO()):
        return pytest.main(["-x", "-q", "-p", "no:cacheprovider", "-p", "no:warnings", *tests]) == pytest.ExitCode.OK


def forked(shop: Workshop, mutation: Mutation) -> int:
    """Tries a mutant in a process of its own, which memory written at random or a loop without end may cost."""
    if process := os.fork():
        return process
    signal.alarm(SECONDS)
    status = BROKEN
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())
        status = SURVIVED if survives(shop, mutation) else KILLED
    finally:
        os._exit(status)


def tried(shop: Workshop, mutations: Iterable[Mutation]) -> Iterator[tuple[Mutation, bool]]:
    """Each mutant, as it is done with, and whether it survives."""
    running: dict[int, Mutation] = {}
    left = iter(mutations)
    while True:
        for mutation in islice(left, (os.cpu_count() or 1) - len(running)):
            running[forked(shop, mutation)] = mutation
        if not running:
            return
        process, status = os.wait()
        mutation = running.pop(process)
        assert not os.WIFEXITED(status) or os.WEXITSTATUS(status) != BROKEN, f"this mutant does not run: {mutation}"
        yield mutation, status == SURVIVED


def main() -> int:
    os.chdir(ROOT)
    part = sys.argv[1] if len(sys.argv) > 1 else ""
    chosen = [mutation for mutation in (*CPP, *IN_BF16, *IN_TAIL, *IN_TRITON, *IN_CUDA) if part in mutation.file]
    whole = sorted({(mutation.file, mutation.sanitized) for mutation in chosen})
    left = 0
    with tempfile.TemporaryDirectory() as folder:
        shop = Workshop.furnished(Path(folder))
        for mutation, passed in tried(shop, [Mutation(file, "", "", sanitized) for file, sanitized in whole]):
            assert passed, f"{mutation.file}: the tests fail as it is"
        for number, (mutation, survived) in enumerate(tried(shop, chosen), 1):
            left += survived
            said = "SURVIVES" if survived else "killed"
            print(f"{number}/{len(chosen)} {said}: {mutation.old} -> {mutation.new}", flush=True)
    print(f"{left} mutants survive")
    return int(left > 0)


if __name__ == "__main__":
    sys.exit(main())
