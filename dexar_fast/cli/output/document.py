"""What runs with `--json` print: one JSON document."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dexar_fast.comparison import Comparison
    from dexar_fast.explanation import Explanation


def document(explanation: Explanation, warnings: Iterable[str], files: Iterable[Path]) -> str:
    """An object on one line, in ASCII.

    Its fields: `answer`, the text; `tokens`, a list of {`text`, `id`, `weight`}; `summary`, what the filters left over,
    in plain words; `warnings` and `files`, lists of texts; `metadata`, that of the explanation: model, settings,
    versions. The maps are in explanation.safetensors, one of the files. A weight is null where the method weighs no
    tokens.
    """
    tokens = zip(_tokens(explanation), _weights(explanation), strict=True)
    fields = {
        "answer": explanation.text,
        "tokens": [token | {"weight": weight} for token, weight in tokens],
        "summary": _summary(explanation),
        "warnings": list(warnings),
        "files": list(map(str, files)),
        "metadata": explanation.metadata,
    }
    return json.dumps(fields, allow_nan=False)


def comparison(found: Comparison, warnings: Iterable[str], files: Iterable[Path]) -> str:
    """The same for several methods: `tokens` without weights, and `methods`, what differs between them.

    That is a list of {`name`, `weights`, `summary`, `settings`, `seconds`}; `metadata` is what they share.
    """
    own = ("settings", "seconds")
    methods = [
        {"name": name, "weights": _weights(each), "summary": _summary(each)}
        | {field: each.metadata[field] for field in own}
        for name, each in zip(found.names, found, strict=True)
    ]
    fields = {
        "answer": found[0].text,
        "tokens": _tokens(found[0]),
        "methods": methods,
        "warnings": list(warnings),
        "files": list(map(str, files)),
        "metadata": {
            field: value
            for field, value in found[0].metadata.items()
            if all(each.metadata.get(field) == value for each in found)
        },
    }
    return json.dumps(fields, allow_nan=False)


def _tokens(explanation: Explanation) -> list[dict[str, Any]]:
    pairs = zip(explanation.tokens, explanation.token_ids.tolist(), strict=True)
    return [{"text": text, "id": number} for text, number in pairs]


def _weights(explanation: Explanation) -> list[float | None]:
    return explanation.token_weights.tolist() if explanation.weighted else [None] * len(explanation)


def _summary(explanation: Explanation) -> str:
    from dexar_fast.report.plain_words import diagnose

    return " ".join(map(str, diagnose(explanation)))
