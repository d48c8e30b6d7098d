"""What the tests of jobs share: the embedded model, and a folder of pictures with what may be wrong in one."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from small_data import damaged, picture

from dexar_fast import Explainer
from dexar_fast.data import DataSet, read
from dexar_fast.jobs.asked import Asked
from dexar_fast.jobs.finished.merging import Merged, merge
from dexar_fast.jobs.job import Job

WHAT = Asked("What?")
NAMES = ["a b.png", "broken.png", "ü/猫.png", "z.png"]


@pytest.fixture(scope="session")
def explainer() -> Explainer:
    return Explainer.from_pretrained()


@pytest.fixture
def photos(tmp_path: Path) -> DataSet:
    for name in NAMES:
        (damaged if name == "broken.png" else picture)(tmp_path / "photos" / name)
    return read("folder", tmp_path / "photos")


class Finishing:
    """Runs jobs to their end, and merges what they found."""

    def __init__(self, explainer: Explainer) -> None:
        self.explainer = explainer

    def __call__(self, data: DataSet, out: Path, asked: Asked = WHAT, **more: Any) -> list[dict[str, Any]]:
        self.run(data, out, asked, **more)
        return self.merged(out)[1]

    def run(self, data: DataSet, out: Path, asked: Asked = WHAT, **more: Any) -> list[tuple[str, Any]]:
        with Job(data, out, asked, more.pop("by", {}), **more) as job:
            return list(job.run(self.explainer))

    def merged(self, out: Path) -> tuple[Merged, list[dict[str, Any]]]:
        found = merge(out)
        return found, pq.read_table(found.path).to_pylist()


@pytest.fixture
def finish(explainer: Explainer) -> Finishing:
    return Finishing(explainer)


@pytest.fixture
def counted(explainer: Explainer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], list[Any]]]:
    """The arguments of the calls of a method of the explainer."""
    calls: dict[str, list[Any]] = {}
    for name in ("explain", "explain_batch", "explain_many"):
        real = getattr(Explainer, name)

        def call(self: Any, *args: Any, name: str = name, real: Any = real, **more: Any) -> Any:
            calls.setdefault(name, []).append(args)
            return real(self, *args, **more)

        monkeypatch.setattr(Explainer, name, call)
    yield lambda name: calls.get(name, [])
