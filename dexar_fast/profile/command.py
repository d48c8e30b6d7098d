"""`dexar-fast profile`: measure, show, and write the files asked for."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rich.console import Console

from dexar_fast.errors import FileError, cause
from dexar_fast.files import write_atomically
from dexar_fast.profile.figure import figure
from dexar_fast.profile.measure import measure
from dexar_fast.profile.recording.trace import trace
from dexar_fast.profile.show import show
from dexar_fast.profile.workload import workload

PICTURES = (".png", ".pdf", ".svg")


@dataclass(frozen=True)
class Files:
    """Where to write the report, the trace and the picture; None leaves it out."""

    report: Path | None = None
    trace: Path | None = None
    picture: Path | None = None

    def check(self) -> None:
        """Raises FileError for what cannot be written, before any work is done."""
        paths = [path for path in (self.report, self.trace, self.picture) if path is not None]
        for path in paths:
            if not path.parent.is_dir():
                raise FileError(f"cannot write {path}: there is no folder {path.parent}")
            if path.is_dir():
                raise FileError(f"cannot write {path}: it is a folder")
            try:
                TemporaryDirectory(dir=path.parent).cleanup()
            except OSError as error:
                raise FileError(f"cannot write {path}: {cause(error)}") from error
        if len({path.resolve() for path in paths}) < len(paths):
            raise FileError("two of the files have one path: give each its own")
        if self.picture is not None and self.picture.suffix not in PICTURES:
            raise FileError(f"cannot draw {self.picture}: name it {', '.join('*' + kind for kind in PICTURES)}")


def run(
    model: str | None, files: Files, console: Console, rounds: int, batches: Sequence[int] = (), **options: Any
) -> None:
    """Measures a workload of `options`, in batches of some sizes, too, and prints it; see `workload`."""
    files.check()
    work = workload(model, **options)
    report = measure(work, rounds, batches)
    show(report, console)
    contents: dict[Path | None, Callable[[], bytes]] = {
        files.report: lambda: f"{json.dumps(report, indent=1)}\n".encode(),
        files.trace: lambda: trace(work),
        files.picture: lambda: _drawn(report, str(files.picture)),
    }
    for path, content in contents.items():
        if path is not None:
            write_atomically(path, content())
            console.print(path, soft_wrap=True, highlight=False)


def _drawn(report: dict[str, Any], name: str) -> bytes:
    picture = BytesIO()
    figure(report).savefig(picture, format=name.rpartition(".")[2])
    return picture.getvalue()
