"""What measuring found of a model, its processor and pictures of some sizes: in memory, and in the user's cache."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import transformers
from torch import Tensor

from dexar_fast import __version__, files
from dexar_fast.prompt.inputs import SEQUENCES
from dexar_fast.vision.geometry import Layout
from dexar_fast.vision.grid import Grid, Size

LARGE = 64  # elements: an input that holds more is known by its shape alone
MANY = 3  # grids over a picture: more are tiles, of whatever number
MOST_FILES, MOST_BYTES = 512, 2**24  # kept on the disk: those that were used last


@dataclass(frozen=True)
class Found:
    """The grids that were confirmed; without any, why."""

    how: str  # as Layout.how
    grids: tuple[Grid, ...] = ()
    reason: str | None = None


_known: dict[str, Found] = {}


def recalled(key: str) -> Found | None:
    """What was found before under this key."""
    if key not in _known:
        with suppress(ValueError, TypeError, KeyError):  # no such file, or not one of ours
            _remember(key, _read(files.recalled(_file(key))))
            files.used(_file(key))
    return _known.get(key)


def keep(key: str, found: Found) -> None:
    """Remembers it, on the disk too where the user's cache can be written."""
    _remember(key, found)
    if files.keep(_file(key), asdict(found)):
        files.tidy(_file(key).parent, MOST_FILES, MOST_BYTES)


def _remember(key: str, found: Found) -> None:
    _known[key] = found
    if len(_known) > MOST_FILES:
        _known.pop(next(iter(_known)), None)


def key_of(model: Any, processor: Any, inputs: Mapping[str, Any], placed: Layout, sizes: list[Size]) -> str:
    """A name for all that the places of visual tokens depend on; the words around them are not among it."""
    tensors = {name: value for name, value in inputs.items() if name not in SEQUENCES and isinstance(value, Tensor)}
    held = {name: _held(value) for name, value in tensors.items()}
    return _name(model, processor, [sizes, held, len(placed.positions), [asdict(grid) for grid in placed.grids]])


def family_key(model: Any, processor: Any, placed: Layout, sizes: list[Size]) -> str:
    """A name for the kinds of pictures that a known family tells apart: upright or not, and in how many grids."""
    grids = {image: [grid for grid in placed.grids if image in grid.images] for image in range(len(sizes))}
    kinds = {
        (width > height, width < height, min(MANY, len(grids[image])), any(grid.video for grid in grids[image]))
        for image, (width, height) in enumerate(sizes)
    }
    return _name(model, processor, sorted(kinds))


def _name(model: Any, processor: Any, parts: list[Any]) -> str:
    of_model = [type(model).__qualname__, model.config.to_json_string(use_diff=False), _settings(processor)]
    parts = [*of_model, parts, __version__, transformers.__version__]
    return hashlib.sha256(json.dumps(parts, default=str, sort_keys=True).encode()).hexdigest()


def _held(value: Tensor) -> Any:
    return value.tolist() if value.numel() <= LARGE and not value.is_floating_point() else list(value.shape)


def _settings(processor: Any) -> dict[str, Any]:
    """Of each part that makes pixels, its class and settings."""
    parts: list[Any] = [getattr(processor, name, None) for name in ("image_processor", "video_processor")]
    return {type(part).__qualname__: part.to_dict() if hasattr(part, "to_dict") else repr(part) for part in parts}


def _file(key: str) -> Path:
    return files.user_cache("places", f"{key}.json")


def _read(found: dict[str, Any]) -> Found:
    grids = tuple(Grid(**{**each, "box": each["box"] and tuple(each["box"])}) for each in found["grids"])
    return Found(str(found["how"]), grids, found["reason"])
