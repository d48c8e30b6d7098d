"""csrc/cuda without a GPU: built by nvcc for every architecture, and run on the CPU one thread after another."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from kv_cases import COPIES, check_copies
from paths import ROOT

from dexar_fast import BackendError, InputError
from dexar_fast.backends import cuda, plan

SOURCE = Path(os.environ.get("DEXAR_FAST_KV_COPY", ROOT / "csrc" / "cuda" / "kv_copy.cu"))  # or a mutant of it
DIMS = (64, 60, 24, 6, 1)  # in bytes 128, 120, 48, 12 and 2: by 16, 8, 16, 4 and 2 at a time
needs_nvcc = pytest.mark.skipif(shutil.which("nvcc") is None, reason="needs nvcc")
needs_gxx = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """What was found out about the machine is forgotten before and after."""
    for function in (cuda.obstacle, plan._moving):
        function.cache_clear()
    yield
    for function in (cuda.obstacle, plan._moving):
        function.cache_clear()


def build(folder: Path, **environment: str) -> list[Path]:
    """The library as an installation builds it; not the extension, which takes its time."""
    command = [sys.executable, "setup.py", "build_ext", f"--build-lib={folder}", f"--build-temp={folder / 'temp'}"]
    no_compiler = {"CC": "/bin/false", "CXX": "/bin/false"}
    subprocess.run(command, cwd=ROOT, env=os.environ | no_compiler | environment, check=True, capture_output=True)
    return list(folder.glob("dexar_fast/_cuda.*"))


@needs_nvcc
@pytest.mark.slow
@pytest.mark.parametrize(
    ("asked", "built"), [("", {"80", "90a?", "100"}), ("9.0a", {"90a?"}), ("8.0;10.0", {"80", "100"})]
)
def test_nvcc_builds_a_library_for_each_architecture(
    asked: str, built: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (library,) = build(tmp_path, TORCH_CUDA_ARCH_LIST=asked)
    monkeypatch.setattr(cuda, "_built", lambda: str(library))
    assert (cuda.obstacle() is None) == torch.cuda.is_available()
    compile = pytest.importorskip("dexar_fast.kernels.compile", exc_type=ImportError)
    shown = subprocess.run([compile.CUOBJDUMP, "-lelf", library], capture_output=True, text=True, check=True).stdout
    # cuobjdump of CUDA 12 shows 90a as 90
    found = {one for one in ("80", "90a?", "100") if re.search(rf"\.sm_{one}\.cubin", shown)}
    assert found == built


def test_without_nvcc_nothing_is_built_and_nothing_fails(tmp_path: Path) -> None:
    assert build(tmp_path, PATH=str(tmp_path)) == []


def test_where_nothing_was_built_the_reason_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "_built", lambda: None)
    assert "install nvcc" in str(cuda.obstacle())


def test_a_library_that_does_not_load_is_an_obstacle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "_cuda.so"
    broken.write_text("no library")
    monkeypatch.setattr(cuda, "_built", lambda: str(broken))
    assert "does not load" in str(cuda.obstacle())


@pytest.fixture(scope="module")
def on_cpu(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The library for this CPU; an address that is not a multiple of what is read or written there ends the process."""
    library = tmp_path_factory.mktemp("cuda") / "kv_copy.so"
    flags = ["-std=c++17", "-O1", "-shared", "-fPIC", "-fsanitize=undefined", "-fsanitize-undefined-trap-on-error"]
    includes = [f"-I{ROOT / 'tests' / 'support' / 'cuda_on_cpu'}", f"-I{ROOT / 'csrc'}"]
    subprocess.run(["g++", *flags, *includes, "-x", "c++", SOURCE, "-o", library], check=True)
    return str(library)


@pytest.fixture(scope="module")
def copy(on_cpu: str) -> Callable[..., None]:
    return lambda tensors, copies: cuda._launch(on_cpu, tensors, copies, 0, 0)


@needs_gxx
@pytest.mark.parametrize("copies", COPIES.values(), ids=COPIES.keys())
def test_slots_are_copied_and_nothing_else_changes(
    copy: Callable[..., None], copies: list[tuple[int, int, int]]
) -> None:
    check_copies(copy, copies, DIMS)


@needs_gxx
def test_slots_of_single_bytes_are_copied(copy: Callable[..., None]) -> None:
    check_copies(copy, [(3, 8, 1), (20, 101, 50)], (5, 1), dtype=torch.int8)


@needs_gxx
def test_more_layers_than_a_launch_takes_are_all_copied(copy: Callable[..., None]) -> None:
    check_copies(copy, [(0, 5, 3)], (8,) * 258)


@needs_gxx
def test_heads_of_several_blocks_are_copied_to_their_end(copy: Callable[..., None]) -> None:
    check_copies(copy, [(0, 101, 90), (95, 195, 3)], (256, 68))


@needs_gxx
def test_what_goes_wrong_is_said(copy: Callable[..., None]) -> None:
    with pytest.raises(BackendError, match="invalid configuration argument; use backend='torch'"):
        copy([torch.zeros(1, 1, 4, 1)], [(0, 1, 0)])


def test_tensors_elsewhere_are_refused() -> None:
    with pytest.raises(InputError, match="CUDA tensors"):
        cuda.kv_copy([torch.zeros(1, 1, 4, 4)], [(0, 1, 1)])


@pytest.mark.skipif(find_spec("triton") is None, reason="needs triton")
@pytest.mark.parametrize(
    ("asked", "obstacle", "expected"),
    [
        ("auto", None, ("torch", "torch")),
        ("triton", None, ("triton", "cuda")),
        ("triton", "not built", ("triton", "triton")),
        ("torch", None, ("torch", "torch")),
    ],
)
def test_what_moves_slots_on_a_gpu(
    asked: str, obstacle: str | None, expected: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cuda, "obstacle", lambda: obstacle)
    assert tuple(choice.backend for choice in plan._moving(asked, "cuda")) == expected


def test_without_triton_torch_moves_them_or_it_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "find_spec", lambda name: None)
    assert plan._moving("auto", "cuda")[0].backend == "torch"
    with pytest.raises(BackendError, match="triton is not installed"):
        plan._moving("triton", "cuda")
