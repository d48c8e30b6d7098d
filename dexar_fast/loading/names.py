"""What a model is called in results: a name that says nothing of the machine it was loaded on."""

from __future__ import annotations

import os
import re
from importlib.resources import files
from typing import Any

EMBEDDED = files("dexar_fast") / "assets" / "shapes-llava"


def shown(name: Any) -> str:
    """The name of a model on the Hub as it is; of a folder, its own name without the way to it."""
    path = str(name or "")
    if path == str(EMBEDDED):
        return f"{EMBEDDED.name} (embedded)"
    if not _is_folder(path):
        return path
    *before, last = re.split(r"[/\\]", os.path.abspath(path) if os.path.exists(path) else path.rstrip("/\\"))
    cached = re.fullmatch(r"models--(.+)", before[-2]) if before[-1:] == ["snapshots"] and len(before) > 1 else None
    return cached[1].replace("--", "/") if cached else last  # the Hub's cache calls a snapshot by its commit


def _is_folder(path: str) -> bool:
    """Whether it is no name on the Hub, which has at most one slash; the folder may be gone."""
    return os.path.exists(path) or "\\" in path or path.count("/") > 1 or path.startswith(("/", ".", "~"))
