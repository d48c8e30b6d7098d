"""Explanations as tasks that Label Studio imports: maps as brush regions, token weights as scores of text regions.

tasks = [task(explanation, "/data/local-files/?d=pictures/cat.png")]
Path("tasks.json").write_text(json.dumps(tasks))       # import it into a project whose labeling config is CONFIG
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dexar_fast.data.libraries import library
from dexar_fast.errors import InputError
from dexar_fast.explanation import Explanation

CONFIG = """<View>
  <Text name="question" value="$question"/>
  <Image name="picture" value="$image"/>
  <BrushLabels name="heat" toName="picture"><Label value="answer"/><Label value="token"/></BrushLabels>
  <Text name="answer" value="$answer"/>
  <Labels name="words" toName="answer"><Label value="token"/></Labels>
</View>"""
STEPS = 15  # of a map: finer ones make regions of ten times the size


def task(explanation: Explanation, picture: str, image: int = 0) -> dict[str, Any]:
    """One task with a prediction: the map of the answer, and for each token its text, its weight and its map.

    A map is a brush region whose opacity, 0 to 255, is the heat in 15 steps. A token is a region of the answer's text;
    its score is its weight over the largest of the answer, and a relation leads to its map. Tokens without a character
    of their own are left out.

    Args:
        picture: the address at which Label Studio finds the picture. image: which of the explained ones it is.
    Raises:
        InputError: no picture was kept, or its map has no place. LibraryError: label-studio-sdk is not installed.
    """
    if not isinstance(picture, str) or not picture:
        raise InputError("picture is the address at which Label Studio finds it: a text")
    regions = [_brush("answer", "answer", explanation.heatmap(image=image, resolution="image"))]
    largest = float(explanation.token_weights.max()) or 1.0
    start = 0
    for n, token in enumerate(explanation.tokens):
        if token:
            score = float(explanation.token_weights[n]) / largest
            regions += _token(n, token, start, score, explanation.heatmap(n, image, resolution="image"))
        start += len(token)
    settings = explanation.metadata.get("settings", {})
    return {
        "data": {
            "image": picture,
            "question": explanation.metadata.get("question", ""),
            "answer": "".join(explanation.tokens),
        },
        "predictions": [{"model_version": f"dexar_fast {settings.get('method', 'dex-ar')}", "result": regions}],
    }


def _token(n: int, token: str, start: int, score: float, heat: NDArray[np.float32]) -> list[dict[str, Any]]:
    word = {
        "id": f"token-{n}",
        "from_name": "words",
        "to_name": "answer",
        "type": "labels",
        "value": {"start": start, "end": start + len(token), "text": token, "labels": ["token"]},
        "score": score,
    }
    relation = {"type": "relation", "from_id": f"token-{n}", "to_id": f"map-{n}", "direction": "right"}
    return [word, _brush(f"map-{n}", "token", heat), relation]


def _brush(name: str, label: str, heat: NDArray[np.float32]) -> dict[str, Any]:
    brush = library("label_studio_sdk.converter.brush", "Label Studio's brush regions", "'dexar-fast[label-studio]'")
    opacity = (np.rint(heat * STEPS) * (255 // STEPS)).astype(np.uint8)
    height, width = heat.shape
    return {
        "id": name,
        "from_name": "heat",
        "to_name": "picture",
        "type": "brushlabels",
        "original_width": width,
        "original_height": height,
        "image_rotation": 0,
        "value": {"format": "rle", "rle": brush.mask2rle(opacity), "brushlabels": [label]},
    }
