"""The micro level under pytest-benchmark: `pytest bench/test_micro.py`. The jobs are those of `bench.micro`."""

import pytest

from bench.micro import cases

JOBS = {f"{case.name}: {job.name}": job.run for case in cases() for job in case.jobs}


@pytest.mark.parametrize("name", JOBS)
def test_micro(benchmark, name):
    benchmark(JOBS[name])
