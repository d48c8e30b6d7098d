"""What every test runs under; set here, before torch and transformers are first imported."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
os.environ["MPLBACKEND"] = "Agg"
os.environ["DEXAR_FAST_VERDICTS"] = "kept"  # no test measures in the background
os.environ.setdefault("OMP_NUM_THREADS", "2")

import sys
import tempfile
from collections.abc import Callable, Iterator
from importlib.abc import MetaPathFinder
from pathlib import Path

import pytest

EXTENSION = "dexar_fast._C"
CACHE = tempfile.TemporaryDirectory(prefix="dexar-fast-tests-")
os.environ["XDG_CACHE_HOME"] = CACHE.name  # what one session of tests measures is not another's


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    """Sets torch's number of threads, for the test."""
    import torch

    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture
def without_extension(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where no compiler was found: importing the extension raises ModuleNotFoundError."""
    monkeypatch.setitem(sys.modules, EXTENSION, None)


@pytest.fixture
def broken_extension(monkeypatch: pytest.MonkeyPatch) -> str:
    """As where a library is missing: importing the extension raises ImportError with the text returned."""
    reason = "libstdc.so.6: cannot open shared object file"

    class Refusing(MetaPathFinder):
        def find_spec(self, name: str, path: object = None, target: object = None) -> None:
            if name == EXTENSION:
                raise ImportError(reason)

    monkeypatch.delitem(sys.modules, EXTENSION, raising=False)
    monkeypatch.setattr(sys, "meta_path", [Refusing(), *sys.meta_path])
    return reason


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small LLaVA, as `--model` takes it."""
    import bad_input

    return bad_input.save_model(tmp_path_factory.mktemp("model") / "small-llava")
