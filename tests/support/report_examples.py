"""Explanations for the tests of the report: any answer over any grids, with numbers drawn from a seed."""

from __future__ import annotations

import base64
import json
import re
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from PIL import Image

from dexar_fast import compare_html
from dexar_fast.explanation import Explanation
from dexar_fast.results.text_relevance import TextRelevance
from dexar_fast.vision.grid import Grid

WORDS = (" a", " red", " square")


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    """What JPEG can do least about."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8))


def plain(width: int = 60, height: int = 40) -> Image.Image:
    return Image.new("RGB", (width, height), (90, 120, 160))


def explanation(
    tokens: Sequence[str] = WORDS,
    grids: tuple[Grid, ...] = (Grid(0, 0, 3, 4),),
    images: tuple[Image.Image, ...] = (plain(),),
    *,
    weights: Sequence[float] | None = None,
    layers: int = 2,
    heads: int = 4,
    seed: int = 0,
    **changes: Any,
) -> Explanation:
    """About half of the head weights and, unless given, of the token weights are 0."""
    draw = np.random.default_rng(seed)
    visual, length = max((int(grid.cells.max()) + 1 for grid in grids), default=12), len(tokens)
    scores = torch.from_numpy(draw.random((length, layers, heads), np.float32))
    kept = (scores - 0.5).relu()
    maps = torch.from_numpy(draw.random((length, visual), np.float32))
    given = draw.normal(size=length).clip(0) if weights is None else weights
    delta = torch.tensor(np.asarray(given, np.float32))
    fields: dict[str, Any] = {
        "token_ids": torch.arange(length),
        "tokens": list(tokens),
        "visual_positions": torch.arange(visual),
        "visual_scores": scores,
        "text_scores": scores - kept,
        "head_weights": kept,
        "token_weights": delta,
        "token_maps": maps,
        "unfiltered_token_maps": maps,
        "sequence_map": delta @ maps,
        "unfiltered_sequence_map": maps.sum(0),
        "grids": grids,
        "diagnostics": {},
        "metadata": {},
        "images": images,
    }
    return Explanation(**fields | changes)


def read(
    tokens: Sequence[str] = WORDS,
    prompt: Sequence[str] = ("<s>", " Which", " one", "?"),
    image: range = range(1, 5),
    *,
    seed: int = 9,
    **changes: Any,
) -> Explanation:
    """An answer behind a prompt with visual tokens at `image`, and its text relevance, about half of which is 0."""
    draw = np.random.default_rng(seed)
    start = len(prompt) + len(image)
    before = [at for at in range(start) if at not in image]
    positions = torch.tensor([*before, *range(start, start + len(tokens) - 1)], dtype=torch.int64)
    maps = torch.from_numpy(draw.normal(size=(len(tokens), len(positions))).clip(0))
    maps *= positions < start + torch.arange(len(tokens))[:, None]
    found = TextRelevance(positions, [*prompt, *tokens[:-1]], maps, maps + 1)
    cells = {"grids": (Grid(0, 0, 1, len(image)),)} if image else {"grids": ()}
    fields = cells | {"metadata": {"prompt_tokens": start}, "text_relevance": found}
    return explanation(tokens, **fields | {"visual_positions": torch.tensor(image, dtype=torch.int64)} | changes)


def data_of(path: Path) -> dict[str, Any]:
    """What the script of a page reads, and as strictly."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', path.read_text("utf-8"), re.DOTALL)
    assert found
    return json.loads(found[1], parse_constant=_refuse)


def _refuse(constant: str) -> NoReturn:
    raise AssertionError(f"{constant} is no JSON: the page would stay blank")


def check_report(made: Explanation, folder: Path) -> None:
    """Writes all that shows an explanation."""
    made.to_html(folder / "report.html", by="word")
    compare_html([made, made], folder / "both.html")
    for name, count in (("report.html", 1), ("both.html", 2)):
        assert len(data_of(folder / name)["reports"]) == count
    if made.grids and made.images and len(made):
        assert made.frames(width=64)[0].width == 64
        made.to_gif(folder / "answer.gif", by="word", width=64)


def unpacked(text: str) -> np.ndarray:
    """The bytes that the page's script unpacks."""
    return np.frombuffer(zlib.decompress(base64.b64decode(text)), np.uint8)
