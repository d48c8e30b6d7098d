"""Rows of a Ray dataset and lots of a job, as the actors explain them: without Ray."""

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from small_data import damaged, picture

from dexar_fast import Explainer
from dexar_fast.data import of
from dexar_fast.data import rows as data_rows
from dexar_fast.errors import InputError, ModelError
from dexar_fast.jobs.asked import Asked
from dexar_fast.jobs.finished.merging import merge
from dexar_fast.jobs.job import Job
from dexar_fast.scale import cluster, engine, mapping, resuming
from dexar_fast.scale.engine import Worker
from dexar_fast.scale.mapping import Mapper, item_of


def batch(**columns: list[Any]) -> dict[str, np.ndarray]:
    """As Ray hands it over."""
    found = {name: np.empty(len(values), object) for name, values in columns.items()}
    for name, values in columns.items():
        found[name][:] = values
    return found


def mapper(asked: Asked, **columns: str) -> Mapper:
    return Mapper(None, {"method": "dex-ar"}, asked, data_rows.checked("ray_map", columns))


def test_rows_of_all_kinds(tmp_path: Path) -> None:
    path = picture(tmp_path / "a.png", 40, 30)
    pixels = np.asarray(Image.open(path))
    images = [
        str(path),
        path.read_bytes(),
        {"bytes": path.read_bytes()},
        pixels,
        str(damaged(tmp_path / "b.png")),
        None,
    ]
    asked = Asked("What?", arguments={"max_new_tokens": 4})
    found = mapper(asked, image="shown")(batch(shown=images, id=[*"abcdef"]))
    tokens = {name: [row for row in found.to_pylist() if row["item"] == name] for name in "abcdef"}
    for name in "bcd":
        one, other = ([row["map"] for row in tokens[each]] for each in (name, "a"))
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-2)
    assert tokens["a"][0]["image"] == str(path) and tokens["a"][0]["prompt"] == "What?"
    assert [row["error"] is None for name in "ef" for row in tokens[name]] == [False, False]
    assert "image is empty" in tokens["f"][0]["error"] and "file" not in found.column_names


def test_rows_are_those_of_explain() -> None:
    items = list(of("shapes:count=1"))
    found = mapper(Asked())(
        batch(
            image=[np.asarray(item.image) for item in items],
            question=[item.question for item in items],
            answer=[item.answer for item in items],
        )
    )
    explainer = Explainer.from_pretrained()
    expected = [explainer.explain(item.image, item.question, item.answer) for item in items]
    assert found["token"].to_pylist() == [token for each in expected for token in each.tokens]
    maps = np.concatenate([each.token_maps.numpy() for each in expected])
    np.testing.assert_allclose(np.stack(found["map"].to_numpy()), maps, rtol=1e-4, atol=1e-4 * maps.max())


def test_the_name_of_a_row() -> None:
    assert item_of({"image": "a.png", "id": 7}).id == "7" and item_of({"image": "a.png"}).id == "a.png"
    assert item_of({"image": np.zeros((2, 2, 3), np.uint8)}).id == ""
    assert "is missing" in str(item_of({"image": "nowhere/a.png"}).error)


def test_a_worker_writes_what_the_plain_engine_writes(tmp_path: Path) -> None:
    data, explainer = of("shapes:count=2"), Explainer.from_pretrained()
    with Job(data, tmp_path / "plain", Asked(batch_size=3), {}) as job:
        list(job.run(explainer))
    with Job(data, tmp_path / "ray", Asked(batch_size=3), {}) as job:
        found = Worker(job.work, None, {})(batch(lot=[json.dumps(lot) for lot in job.lots]))
        for records in found["records"]:
            list(job.add(json.loads(records)))
        assert not job.left
    assert merge(tmp_path / "plain").path.read_bytes() == merge(tmp_path / "ray").path.read_bytes()


class FakeRay:
    """A cluster with so many GPUs."""

    def __init__(self, gpus: float) -> None:
        self.gpus = gpus
        self.data = self.context = self.execution_options = self

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": 4.0, "GPU": self.gpus} if self.gpus else {"CPU": 4.0}

    def ActorPoolStrategy(self, size: int) -> int:
        return size


@pytest.mark.parametrize(("gpus", "actors", "size"), [(0, None, 1), (3, None, 3), (0, 2, 2), (3, 1, 1)])
def test_an_actor_a_gpu(gpus: int, actors: int | None, size: int) -> None:
    assert cluster.pool(FakeRay(gpus), actors) == {"compute": size, "num_gpus": 1 if gpus else 0}


def test_what_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="actors is a positive number, not 0"):
        cluster.pool(FakeRay(0), 0)
    monkeypatch.setattr(mapping.cluster, "ray", lambda: FakeRay(0))
    with pytest.raises(InputError, match=r"ray_map: columns may name .*, not 'picture'"):
        mapping.ray_map(FakeRay(0), columns={"picture": "x"})


class Rows(list[dict[str, Any]]):
    """A dataset that can be filtered."""

    def filter(self, keep: Any) -> "Rows":
        return Rows(filter(keep, self))


def test_what_a_killed_pipeline_has_left(tmp_path: Path) -> None:
    """A picture without an id counts by its path, with each of its questions; one without either is always left."""
    held = {"item": ["a", "a", "x.png", "0", ""], "prompt": ["What?", "What?", "What?", None, "What?"]}
    pq.write_table(pa.table(held), tmp_path / "0.parquet")
    (tmp_path / "1.parquet").write_bytes(b"PAR1 cut off")
    done = [
        {"name": "a", "asked": "What?"},
        {"name": None, "shown": "x.png", "asked": "What?"},
        {"name": 0, "shown": "x.png"},
    ]
    left = [
        {"name": "b", "shown": "x.png", "asked": "What?"},
        {"name": None, "shown": "x.png", "asked": "Why?"},
        {"shown": b"bytes", "asked": "What?"},
    ]
    names = data_rows.checked("d", {"id": "name", "image": "shown", "question": "asked"})
    key_of = partial(mapping.key_of, Asked(), names)
    for _ in range(2):
        assert resuming.left(Rows(done + left), tmp_path, key_of) == left
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.parquet", "_torn-1.parquet"]
    assert resuming.left(rows := Rows(done), tmp_path / "new", key_of) is rows


def test_an_error_of_ours_in_an_actor_is_raised_as_itself() -> None:
    def failing(text: str) -> Iterator[dict[str, str]]:
        yield {}
        raise RuntimeError(text)

    account = "The actor died.\n  File x\ndexar_fast.errors.ModelError: cannot load 'm': no such model\n"
    with pytest.raises(ModelError, match=r"^cannot load 'm': no such model$"):
        list(engine.ours(failing(account)))
    for other in ("", "ValueError: dexar_fast.errors.ModelError: x", "dexar_fast.errors.Nothing: x"):
        with pytest.raises(RuntimeError):
            list(engine.ours(failing(other)))
