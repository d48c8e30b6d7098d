"""The command line with the model replaced by a fake, and what its tests ask of it."""

from types import SimpleNamespace
from typing import Any

import torch
from PIL import Image
from typer.testing import CliRunner, Result

from dexar_fast import Explanation
from dexar_fast.cli import app
from dexar_fast.vision.grid import Grid

FILES = ["answer.png", "explanation.safetensors", "report.html", "tokens.png"]


def explanation(weights: tuple[float, ...] = (0.5, 0.25), grids: bool = True, **changes: Any) -> Explanation:
    count = len(weights)
    heads = torch.zeros(count, 2, 4)
    heads[0, 0, :2] = 1
    kept = sum(weight > 0 for weight in weights)
    fields: dict[str, Any] = {
        "token_ids": torch.arange(count),
        "tokens": ["red", "[b]\n"][:count],
        "visual_positions": torch.arange(4),
        "visual_scores": torch.ones(count, 2, 4),
        "text_scores": torch.ones(count, 2, 4),
        "head_weights": heads,
        "token_weights": torch.tensor(weights),
        "token_maps": torch.rand(count, 4),
        "unfiltered_token_maps": torch.rand(count, 4),
        "sequence_map": torch.rand(4),
        "unfiltered_sequence_map": torch.rand(4),
        "grids": (Grid(0, 0, 2, 2),) if grids else (),
        "diagnostics": {
            "tokens": count,
            "tokens_with_weight": kept,
            "heads": heads.numel(),
            "heads_kept": 2,
            "text_winners": [{"position": 0, "token": "<s>", "share": 0.75}],
        },
        "metadata": {},
        "images": (Image.new("RGB", (32, 24), "red"),),
    }
    return Explanation(**fields | changes)


class FakeExplainer:
    """Answers with `result`, or raises it; remembers what it was asked."""

    warnings = ()
    model = SimpleNamespace(generation_config=SimpleNamespace(do_sample=False))
    result: Explanation | BaseException
    loaded: tuple[Any, dict[str, Any]] | None
    asked: tuple[Any, ...] | None

    @classmethod
    def from_pretrained(cls, name: str | None = None, **options: Any) -> "FakeExplainer":
        cls.loaded = (name, options)
        return cls()

    def explain(self, image: Any, prompt: str, response: str | None = None, **options: Any) -> Explanation:
        type(self).asked = (image, prompt, response, options)
        if isinstance(self.result, BaseException):
            raise self.result
        return self.result


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app.app, list(arguments), env={"COLUMNS": "200"})


def refused(result: Result) -> str:
    """The one line that a refused command leaves on stderr."""
    assert result.exit_code == 2
    assert result.stderr.startswith("dexar-fast: ")
    assert result.stderr.count("\n") == 1
    return result.stderr
