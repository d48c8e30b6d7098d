"""What a paper measures, by its name: the files in `papers/`."""

from __future__ import annotations

import tomllib
from importlib.resources import files
from typing import Any

from dexar_fast.errors import InputError

_FOLDER, _ENDING = "papers", ".toml"


def names() -> list[str]:
    """Every protocol."""
    return sorted(path.name.removesuffix(_ENDING) for path in _folder().iterdir() if path.name.endswith(_ENDING))


def read(name: str) -> dict[str, Any]:
    """Methods, metrics, models and prompt of a paper, as far as its file names them. Raises InputError."""
    if name not in names():
        raise InputError(f"protocol {name!r} is none of {', '.join(names())}")
    return tomllib.loads((_folder() / f"{name}{_ENDING}").read_text("utf-8"))


def _folder() -> Any:
    return files("dexar_fast.jobs.eval") / _FOLDER
