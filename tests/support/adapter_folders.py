"""Folders that hold adapters."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file


def copied(folder: Path, to: Path, **config: Any) -> Path:
    shutil.copytree(folder, to)
    file = to / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | config))
    return to


def with_weights(folder: Path, change: Callable[[str], str | None]) -> Path:
    """An adapter whose weights have other names; None leaves one out."""
    file = folder / "adapter_model.safetensors"
    weights = {change(key): tensor for key, tensor in load_file(file).items()}
    save_file({key: tensor for key, tensor in weights.items() if key}, file, metadata={"format": "pt"})
    return folder


REFUSALS: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "none of its weights fits": (
        "missing and would be random: .*lora_A.* more",
        lambda folder: with_weights(folder, lambda key: key.replace("language_model", "other_model")),
    ),
    "some of its weights are missing": (
        "missing and would be random: .*lora_B",
        lambda folder: with_weights(folder, lambda key: None if "lora_B" in key and "layers.1" in key else key),
    ),
    "some of its weights have no place": (
        "have no place for these weights: .*layers.9",
        lambda folder: with_weights(folder, lambda key: key.replace("layers.1.mlp", "layers.9.mlp")),
    ),
}
