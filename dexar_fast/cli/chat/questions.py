"""The questions of a conversation, from a terminal or a pipe."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from dexar_fast.errors import InputError


def questions() -> Iterator[str]:
    """The lines of standard input that hold words; on a terminal each is asked for.

    Raises:
        InputError: no line does, or they are no text.
    """
    asked = 0
    while (line := _line()) is not None:
        if line.strip():
            asked += 1
            yield line.strip()
    if not asked:
        raise InputError("no question came on the standard input: write one a line")


def _line() -> str | None:
    """The next line; None at the end."""
    try:
        return input("> " if sys.stdin.isatty() else "")
    except EOFError:
        return None
    except UnicodeDecodeError:
        raise InputError("the standard input is no text: write questions as UTF-8, one a line") from None
