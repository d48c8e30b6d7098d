"""dexar_fast.backends.cpu against what the operating system says about the same CPU."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from dexar_fast import BackendError
from dexar_fast.backends import cpu

LINUX_X86 = platform.system() == "Linux" and platform.machine() == "x86_64"
CPUINFO_NAMES = {"sse42": "sse4_2", "avx512vnni": "avx512_vnni", "avx512bf16": "avx512_bf16"}
REPORTED = (
    "sse42", "avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512vnni", "avx512bf16",
    "amx_tile", "amx_int8", "amx_bf16",
)  # fmt: skip


@pytest.mark.skipif(not LINUX_X86, reason="compares with /proc/cpuinfo")
def test_instruction_sets_are_those_the_kernel_lists() -> None:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    flags = next(line for line in lines if line.startswith("flags")).split()
    expected = {name for name in REPORTED if CPUINFO_NAMES.get(name, name) in flags}
    assert set(cpu.detect().instruction_sets) == expected


def test_architecture_and_cores() -> None:
    found = cpu.detect()
    assert found.architecture == platform.machine()
    assert 1 <= found.physical_cores <= (os.cpu_count() or 1)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no affinity masks")
def test_cores_outside_the_affinity_mask_do_not_count() -> None:
    pin = "import os; os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])"
    code = f"{pin}; from dexar_fast.backends import cpu; print(cpu.detect().physical_cores)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "1"


def test_an_extension_that_was_not_built_is_named(without_extension: None) -> None:
    with pytest.raises(BackendError, match=r"not built: install a C\+\+ compiler"):
        cpu.detect()


def test_an_extension_that_does_not_load_is_named(broken_extension: str) -> None:
    with pytest.raises(BackendError, match=rf"does not load \({broken_extension}\)"):
        cpu.detect()


RESTING = """
import os, time, torch
from dexar_fast.backends.cpu import rest_threads

torch.set_num_threads(2)
x = torch.randn(512, 512)

def workers():
    return len(os.listdir("/proc/self/task"))

rest_threads()  # there are none yet
expected = x @ x
made = workers()
rest_threads()
end = time.monotonic() + 20
while workers() >= made and time.monotonic() < end:
    time.sleep(0.01)
left = workers()
assert torch.equal(x @ x, expected)
print(made - left, workers() - left)
"""


@pytest.mark.skipif(not LINUX_X86, reason="counts threads in /proc")
def test_workers_of_a_thread_that_rests_go_and_come_back() -> None:
    environment = os.environ | {"OMP_NUM_THREADS": "2"}
    found = subprocess.check_output([sys.executable, "-c", RESTING], text=True, env=environment)
    assert found.split() == ["1", "1"]


def test_without_the_extension_nothing_rests(without_extension: None) -> None:
    cpu.rest_threads()
