"""What the program says on stderr, one line at a time, and the status that it ends with."""

from __future__ import annotations

import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from dexar_fast.errors import DexarError

FAILED = 2
INTERRUPTED = 128 + signal.SIGINT


@contextmanager
def errors_in_one_line(debug: bool) -> Iterator[None]:
    """Ends the program with one line on stderr, or a traceback: for a DexarError with status 2, for Ctrl-C with 130."""
    try:
        yield
    except (DexarError, KeyboardInterrupt) as error:
        interrupted = isinstance(error, KeyboardInterrupt)
        if debug:
            traceback.print_exc()
        else:
            say("interrupted" if interrupted else str(error))
        raise typer.Exit(INTERRUPTED if interrupted else FAILED) from None


def say(*texts: str) -> None:
    """One line on stderr, whatever the texts hold."""
    print("dexar-fast:", *" ".join(texts).split(), file=sys.stderr)
