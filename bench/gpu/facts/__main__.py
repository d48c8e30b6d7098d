"""Writes `facts.json` anew after each fact; one that cannot be found out says why, and the others go on."""

from __future__ import annotations

import argparse
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.gpu.facts import attention, passes, place, verdicts
from bench.results import write

FACTS: dict[str, Callable[[place.Place], Any]] = {
    "attention at new lengths": attention.found,
    "launches and times": passes.found,
    "verdicts": verdicts.found,
}


def main() -> int:
    """0 if every fact was found out."""
    parser = argparse.ArgumentParser("python -m bench.gpu.facts", description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--rehearse", action="store_true")
    given = parser.parse_args()
    told: dict[str, Any] = {}
    with place.rehearsed() if given.rehearse else place.card() as here:
        for name, find in FACTS.items():
            told[name] = _tried(find, here)
            write(told, given.out / "facts.json")
    return int(any("error" in fact for fact in told.values()))


def _tried(find: Callable[[place.Place], Any], here: place.Place) -> dict[str, Any]:
    try:
        return {"found": find(here)}
    except Exception as error:
        traceback.print_exc()
        return {"error": f"{type(error).__name__}: {error}"}


raise SystemExit(main())
