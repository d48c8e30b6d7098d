"""The questions of a conversation, from a terminal or a pipe."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from dexar_fast.errors import InputError


def asked() -> Iterator[str]:
    """The lines of standard input that hold words; on a terminal each is asked for.

    Raises:
        InputError: no line does, or they are no text.
    """
    count = 0
    while (line := _line()) is not None:
        if line.strip():
            count += 1
            yield line.strip()
    if not count:
        raise InputError("no question came on the standard input: write one a line")


def is_terminal() -> bool:
    """Whether somebody types the questions."""
    return sys.stdin is not None and sys.stdin.isatty()


def _line() -> str | None:
    """The next line; None at the end."""
    try:
        return input("> " if is_terminal() else "")
    except (EOFError, RuntimeError):  # the second where there is no standard input at all
        return None
    except UnicodeDecodeError:
        raise InputError("the standard input is no text: write questions as UTF-8, one a line") from None
