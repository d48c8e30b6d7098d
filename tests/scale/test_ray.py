"""A local Ray with two workers, of which one is killed in the middle."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import dying
import pandas as pd
import pytest

from dexar_fast import Explainer
from dexar_fast.jobs.asked import Asked
from dexar_fast.jobs.finished.merging import merge
from dexar_fast.jobs.job import Job
from dexar_fast.scale import cluster, engine, ray_map

pytestmark = pytest.mark.slow  # Ray takes long to start
ray = pytest.importorskip("ray")


@pytest.fixture(scope="module")
def started() -> Iterator[Any]:
    """Workers find the modules that tests share where this process does."""
    support = os.path.dirname(dying.__file__)
    env = {"PYTHONPATH": os.pathsep.join([support, os.environ.get("PYTHONPATH", "")]), "OMP_NUM_THREADS": "1"}
    ray.init(
        num_cpus=2,
        object_store_memory=100 * 2**20,
        include_dashboard=False,
        log_to_driver=False,
        runtime_env={"env_vars": env},
    )
    yield cluster.ray()
    ray.shutdown()


def test_a_job_goes_on_behind_a_killed_actor(started: Any, tmp_path: Path) -> None:
    data, asked = dying.data(tmp_path / "marker"), Asked(batch_size=2)
    with Job(data, tmp_path / "out", asked, {}) as job:
        told = list(engine.run(job, None, {}, actors=2))
    assert (tmp_path / "marker").exists()
    assert sorted(told) == [(str(index), None) for index in range(dying.COUNT)]
    with Job(data, tmp_path / "plain", asked, {}) as job:
        list(job.run(Explainer.from_pretrained()))
    assert merge(tmp_path / "out").path.read_bytes() == merge(tmp_path / "plain").path.read_bytes()
    with Job(data, tmp_path / "out", asked, {}) as job:
        assert job.lots == []


def test_a_pipeline_keeps_its_order_and_goes_on(started: Any, tmp_path: Path) -> None:
    (tmp_path / "marker").touch()
    paths, out = [str(tmp_path / f"{index}.png") for index in range(dying.COUNT)], tmp_path / "out"
    for index, path in enumerate(paths):
        dying.opened(str(tmp_path / "marker"), index).save(path)
    rows = [{"image": path, "question": "What is it?"} for path in [*paths, str(tmp_path / "missing.png")]]
    ds = started.data.from_items(rows, override_num_blocks=5)
    with ThreadPoolExecutor(1) as beside:
        killed = beside.submit(dying.kill_an_actor, "MapBatches(Mapper)")
        ray_map(ds, batch_size=2, actors=2).write_parquet(str(out))
        assert killed.result() > 0
    found = pd.read_parquet(out)
    assert [*dict.fromkeys(found["item"])] == [row["image"] for row in rows]
    assert found["item"][found["error"].notna()].tolist() == [rows[-1]["image"]]
    first, *_, last = sorted(out.glob("*.parquet"))
    first.write_bytes(first.read_bytes()[:100])
    last.unlink()
    ray_map(ds, batch_size=2, actors=1, done=str(out)).write_parquet(str(out))
    again = pd.read_parquet(out)
    assert len(again) == len(found) and set(again["item"]) == set(found["item"])
