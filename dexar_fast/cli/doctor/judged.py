"""Which kernels this machine takes, by its verdicts; and how these are made anew."""

from __future__ import annotations

from collections.abc import Callable

from dexar_fast.backends.judging import deciding, usual
from dexar_fast.backends.verdicts import kept
from dexar_fast.backends.verdicts.case import Case, Verdict
from dexar_fast.cli.doctor.findings import Finding


def verdicts() -> list[Finding]:
    """On each device; what would be judged there, where nothing has been."""
    return [finding for device in usual.devices() for finding in _on(device)]


def _on(device: str) -> list[Finding]:
    cases = usual.usual(device)
    if not cases:
        return []
    found = [_verdict(case, verdict) for case, verdict in kept.all_of(device)]
    return found or [Finding(device, f"{len(cases)} kernels not judged", "dexar-fast doctor --measure")]


def _verdict(case: Case, verdict: Verdict) -> Finding:
    sizes = "x".join(map(str, case.sizes))
    said = "taken" if verdict.taken else "not taken"
    return Finding(f"{case.op} {sizes} {case.dtype}", f"{case.kernel}: {said}", f"{verdict.reason}, {verdict.day}")


def judge(told: Callable[[str], None]) -> None:
    """Judges every kernel anew that this machine could take: at the usual sizes, at those kept, and at those asked for.

    Args:
        told: hears a line for each.
    """
    cases = [case for device in usual.devices() for case in usual.usual(device)]
    cases += [case for device in usual.devices() for case, _ in kept.all_of(device)] + kept.wanted()

    def tell(case: Case, verdict: Verdict | None) -> None:
        told(f"{case.name}: {'not decided: its trial could not begin' if verdict is None else verdict.reason}")

    deciding.decide(list(dict.fromkeys(cases)), tell)
