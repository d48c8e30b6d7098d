"""What the program says on stderr, one line at a time, and the status that it ends with."""

from __future__ import annotations

import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from dexar_fast.errors import DexarError, reason

FAILED = 2
INTERRUPTED = 128 + signal.SIGINT


@contextmanager
def errors_in_one_line(debug: bool) -> Iterator[None]:
    """Ends the program with one line on stderr, or a traceback: with status 2, for Ctrl-C with 130.

    A library that does not import is an error of the installation, and so one line, too.
    """
    try:
        yield
    except (DexarError, ImportError, KeyboardInterrupt) as error:
        if debug:
            traceback.print_exc()
        else:
            say(_line(error))
        raise typer.Exit(INTERRUPTED if isinstance(error, KeyboardInterrupt) else FAILED) from None


def _line(error: BaseException) -> str:
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    if isinstance(error, ImportError):
        return f"a library does not import ({reason(error)}): install dexar-fast and what it needs again"
    return str(error)


def say(*texts: str) -> None:
    """One line on stderr, whatever the texts hold."""
    print("dexar-fast:", *" ".join(texts).split(), file=sys.stderr)
