"""What a run of `dexar-fast explain --json` prints: one JSON document."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dexar_fast.explanation import Explanation


def document(explanation: Explanation, warnings: Iterable[str], files: Iterable[Path]) -> str:
    """An object on one line, in ASCII.

    Its fields: `answer`, the text; `tokens`, a list of {`text`, `id`, `weight`}; `summary`, what the filters left over,
    in plain words; `warnings` and `files`, lists of texts; `metadata`, that of the explanation: model, settings,
    versions. The maps are in explanation.safetensors, one of the files.
    """
    from dexar_fast.report.plain_words import diagnose

    columns = explanation.tokens, explanation.token_ids.tolist(), explanation.token_weights.tolist()
    fields = {
        "answer": explanation.text,
        "tokens": [dict(zip(("text", "id", "weight"), row, strict=True)) for row in zip(*columns, strict=True)],
        "summary": " ".join(map(str, diagnose(explanation))),
        "warnings": list(warnings),
        "files": list(map(str, files)),
        "metadata": explanation.metadata,
    }
    return json.dumps(fields, allow_nan=False)
