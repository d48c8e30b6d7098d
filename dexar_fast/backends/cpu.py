"""What the CPU of this machine offers, as the C++ extension finds it."""

import platform
from contextlib import suppress
from dataclasses import dataclass

from dexar_fast.errors import ExtensionError


@dataclass(frozen=True)
class Cpu:
    """What this process may use of the CPU.

    Attributes:
        architecture: as the system names it, such as x86_64 or aarch64.
        instruction_sets: those of csrc/cpu/features.h that both the CPU and the operating system support.
        physical_cores: cores this process may run on, the hyper-threads of one core counted once.
    """

    architecture: str
    instruction_sets: tuple[str, ...]
    physical_cores: int


def detect() -> Cpu:
    """The CPU of this machine.

    Raises:
        ExtensionError: the extension was not built, or does not load; the message says what to do.
    """
    try:
        import dexar_fast._C as _C
    except ModuleNotFoundError as error:
        raise ExtensionError("not built: install a C++ compiler such as g++, then dexar_fast again") from error
    except ImportError as error:
        raise ExtensionError(f"does not load ({error}): install dexar_fast again on this machine") from error
    usable = tuple(name for name, present in _C.cpu_features().items() if present)
    return Cpu(platform.machine(), usable, _C.physical_cores())


def rest_threads() -> None:
    """Lets go the workers that torch keeps for the calling thread, where the extension is built.

    Whoever hands its work to another thread and waits: with the workers of both there are more than cores, and each
    parallel region of the other pays for waking its own. A small model writes 1.6 times as fast (2 cores, libgomp).
    """
    with suppress(ImportError):
        from dexar_fast._C import rest_threads as rest

        rest()
