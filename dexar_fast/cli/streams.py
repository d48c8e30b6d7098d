"""Standard output and error as the program uses them."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import TextIOWrapper

from dexar_fast.errors import FileError, cause


class Output(TextIOWrapper):
    """Standard output. A full disk or a closed pipe behind it is a FileError; what follows goes nowhere."""

    def write(self, text: str) -> int:
        with self._told():
            return super().write(text)

    def flush(self) -> None:
        with self._told():
            super().flush()

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.fileno())  # or the interpreter's last flush fails again
            raise FileError(f"cannot write to the standard output ({cause(error)})") from error


def tame() -> None:
    """Characters the terminal cannot show become question marks; failures of standard output become FileErrors."""
    out, error = sys.stdout, sys.stderr
    if isinstance(error, TextIOWrapper):
        error.reconfigure(errors="replace")
    if isinstance(out, TextIOWrapper):
        sys.stdout = Output(out.buffer, out.encoding, "replace", line_buffering=out.line_buffering)
