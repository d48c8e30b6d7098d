"""Which kernels this machine takes, as `dexar-fast doctor --measure` has found out before."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from bench.gpu.facts.place import Place
from dexar_fast.backends.judging import usual
from dexar_fast.backends.verdicts import kept


def found(here: Place) -> list[dict[str, Any]]:
    """Every verdict that is kept for its devices."""
    return [asdict(case) | asdict(verdict) for device in usual.devices() for case, verdict in kept.all_of(device)]
