"""What a visitor may take along: the report, the numbers, an animation; made in memory or in a folder that goes."""

from __future__ import annotations

import base64
import io
import itertools
import re
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dexar_fast.explanation import Explanation
from dexar_fast.report.page import document

REPORT, ARRAYS, SEVERAL, GIF = "report.html", "explanation.safetensors", "explanations.zip", "answer.gif"
_numbers = itertools.count(1)


def report(explanations: Sequence[Explanation], titles: Sequence[str], by: str) -> dict[str, Any]:
    """The page of one, or of several side by side, as a file that works offline."""
    return _file(REPORT, document.render(explanations, titles, by))


def arrays(explanations: Sequence[Explanation], titles: Sequence[str]) -> dict[str, Any]:
    """What `Explanation.save` writes; of several a ZIP file, each named by its title."""
    files = [_written(each, ARRAYS) for each in explanations]
    if len(files) == 1:
        return _file(ARRAYS, files[0])
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for n, (title, data) in enumerate(zip(titles, files, strict=True), 1):
            archive.writestr(f"{n}-{_plain(title)}.safetensors", data)
    return _file(SEVERAL, packed.getvalue())


def gif(explanation: Explanation, by: Any) -> dict[str, Any]:
    """What `Explanation.to_gif` writes. Raises InputError as it does."""
    with tempfile.TemporaryDirectory(prefix="dexar-fast-") as folder:
        explanation.to_gif(Path(folder) / GIF, by=by)
        return _file(GIF, (Path(folder) / GIF).read_bytes())


def _plain(title: str) -> str:
    """What of a title any file system takes."""
    return re.sub(r"[^\w.+]+", "-", title).strip("-.")[:40]


def _written(explanation: Explanation, name: str) -> bytes:
    with tempfile.TemporaryDirectory(prefix="dexar-fast-") as folder:
        explanation.save(Path(folder) / name)
        return (Path(folder) / name).read_bytes()


def _file(name: str, data: bytes) -> dict[str, Any]:
    """As the page's saver takes it; the number tells a new file from the last one."""
    return {"name": name, "data": base64.b64encode(data).decode(), "number": next(_numbers)}
