"""Verdicts, in memory and in the user's cache. Looking one up runs nothing on a device, so that a capture may do it.

A process keeps to what it found first: one explanation is not like the next because a verdict came between them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from dexar_fast import files
from dexar_fast.backends.verdicts import machine
from dexar_fast.backends.verdicts.case import Case, Verdict

ENVIRONMENT = (
    "DEXAR_FAST_VERDICTS"  # "off": none is read or made; "kept": those kept are read, and none is made unasked
)
_known: dict[Case, Verdict | None] = {}


def found(case: Case) -> Verdict | None:
    """The verdict on a case; None if there is none."""
    if case not in _known:
        _known[case] = _read(case)
    return _known[case]


def takes(case: Case) -> bool:
    """Whether a verdict says that `auto` takes the kernel."""
    verdict = found(case)
    return verdict is not None and verdict.taken


def wanted() -> list[Case]:
    """What this process has asked for and no verdict is on."""
    return [case for case, verdict in _known.items() if verdict is None]


def keep(case: Case, verdict: Verdict) -> bool:
    """Keeps a verdict, and for this process; returns whether the user's cache can be written."""
    _known[case] = verdict
    document = {"machine": machine.machine(case.device), "case": asdict(case), "verdict": asdict(verdict)}
    return files.keep(_file(case), document)


def all_of(device: str) -> Iterator[tuple[Case, Verdict]]:
    """What is kept for this machine as it is now."""
    for path in sorted(folder(device).glob("*.json")):
        with suppress(TypeError, KeyError):
            kept = files.recalled(path)["case"]
            case = Case(**kept | {"sizes": tuple(kept["sizes"]), "device": device})
            verdict = _read(case)
            if verdict is not None:
                yield case, verdict


def folder(device: str) -> Path:
    """Where verdicts on this machine are kept: another driver, version or kernel has another folder."""
    return files.user_cache("verdicts", machine.key(device))


def is_off() -> bool:
    """Whether the environment forbids them."""
    return os.environ.get(ENVIRONMENT) == "off"


def _file(case: Case) -> Path:
    return folder(case.device) / f"{case.name}.json"


def _read(case: Case) -> Verdict | None:
    if not is_off():
        with suppress(TypeError, KeyError):  # no such file, or not one of ours
            return Verdict.read(files.recalled(_file(case))["verdict"])
    return None
