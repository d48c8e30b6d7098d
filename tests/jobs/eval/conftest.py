"""What the tests of evaluations share: a few Shapes items of the embedded model, evaluated into a folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dexar_fast import Explainer, data
from dexar_fast.jobs.eval.plan import Evaluation
from dexar_fast.jobs.eval.running import finished, run

Records = dict[str, Any]


@pytest.fixture(scope="session")
def load() -> Callable[[str], Explainer]:
    explainer = Explainer.from_pretrained()
    return lambda model: explainer


@pytest.fixture
def evaluated(load: Callable[[str], Explainer], tmp_path: Path) -> Callable[..., tuple[Evaluation, Records]]:
    """Of a spelled data set, or of a data set itself."""

    def evaluate(given: Any, **options: Any) -> tuple[Evaluation, Records]:
        found = data.of(given) if isinstance(given, str) else given
        asked = Evaluation(found, str(given), **options)
        for _ in run(asked, tmp_path / "out", load):
            pass
        return asked, finished(asked, tmp_path / "out")

    return evaluate
