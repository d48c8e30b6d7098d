"""What is compared: a call of a tool and that of its adapter, over one model, picture and answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from PIL import Image

from bench.subjects import Subject
from dexar_fast import Explainer


@dataclass(frozen=True)
class Common:
    """What every row is about: the embedded model, the sample, a question and a given answer."""

    explainer: Explainer
    picture: Image.Image
    prompt: str
    answer: str

    def subject(self) -> Subject:
        """The same as tensors: inputs of the model, ids of the answer."""
        processor, text = self.explainer.processor, f"USER: <image>\n{self.prompt} ASSISTANT:"
        inputs = processor(images=self.picture, text=text, return_tensors="pt")
        ids = processor.tokenizer.encode(self.answer, add_special_tokens=False)
        return Subject(self.explainer.model, dict(inputs), torch.tensor(ids))


@dataclass(frozen=True)
class Row:
    """One use of a tool, both ways; `about` says what the two share and where they differ."""

    name: str
    ours: Callable[[], Any]
    theirs: Callable[[], Any]
    about: str
    rounds: int | None = None  # at most so many, where theirs takes long


@dataclass(frozen=True)
class Tool:
    """A tool by its name, and what it is installed as; None for a repository, which is measured by its formula."""

    name: str
    distribution: str | None
    rows: Callable[[Common], Sequence[Row]]  # imports the tool

    @property
    def version(self) -> str | None:
        """None where it is not installed, "" where nothing has to be."""
        try:
            return version(self.distribution) if self.distribution else ""
        except PackageNotFoundError:
            return None
