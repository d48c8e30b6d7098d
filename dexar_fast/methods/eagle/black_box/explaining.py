"""Explains an answer by nothing but its tokens' probabilities under pictures of which regions are hidden."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image

from dexar_fast import __version__
from dexar_fast.errors import InputError
from dexar_fast.explanation import Explanation
from dexar_fast.methods import result
from dexar_fast.methods.cut.divided import divided
from dexar_fast.methods.eagle.black_box.asking import Asking, BlackBox, name_of
from dexar_fast.methods.eagle.method import Eagle, given
from dexar_fast.methods.eagle.ranked import Ranked
from dexar_fast.results.assembly import ResultHeader
from dexar_fast.stages import Laps
from dexar_fast.vision.images import load_image

UNKNOWN = -1  # the id of a token that only its text is known of


def explain_black_box(
    image: Any,
    prompt: str,
    answer: str | Sequence[str],
    probabilities: BlackBox,
    method: Eagle | None = None,
    *,
    record: Any = None,
    workers: int = 1,
) -> Explanation:
    """Explains an answer of any model by EAGLE. The result is like that of a local model, but all its token ids are -1.

    Args:
        image: a path, a PIL image or an array; all of it counts as seen.
        prompt: what the model was asked, as `probabilities` takes it.
        answer: the texts of its T tokens; or one text, which has one probability.
        probabilities: a function, or an `Endpoint`. From an RGB picture, the prompt and the list of the tokens' texts
            it gives their T probabilities, each behind the tokens before it.
        method: None is `Eagle()`. Its `ids` must be None; its `batch` has no meaning here.
        record: a file that takes all probabilities as they come: a run that was stopped goes on where it was. It may
            serve many pictures, prompts and answers, and many models if an attribute `model` of each `probabilities`
            tells them apart.
        workers: how many threads call `probabilities` at once.
    Raises:
        ImageError: the image cannot be read. FileError: the record cannot be read or written, or is something else.
        InputError: no answer, a value outside its range, or another number of probabilities.
        NumericalError: NaN or a value outside [0, 1]. Else what `probabilities` raises.
    """
    tokens, picture, method, laps = _tokens(answer), load_image(image), given(method), Laps(None)
    if method.ids is not None:
        raise InputError("ids belong to a local model: leave them out, and give the other words as the answer")
    ranked = _ranked(picture, method, len(tokens), Asking(probabilities, prompt, tokens, record, workers))
    laps.lap("explain")
    header = _header(picture, prompt, name_of(probabilities), method, laps)
    return result.explanation(header, torch.full((len(tokens),), UNKNOWN), tokens, ranked.maps(len(tokens)))


def _tokens(answer: Any) -> list[str]:
    tokens = [answer] if isinstance(answer, str) else list(answer)
    if not tokens or not all(isinstance(token, str) for token in tokens):
        raise InputError("the answer is a text, or a list of its tokens' texts, at least one")
    return tokens


def _ranked(picture: Image.Image, method: Eagle, tokens: int, asking: Asking) -> Ranked:
    cut = divided([picture], (), method.regions, method.segmentation, method.labels, method.fill)
    seen, chosen = torch.arange(cut.count), method.chosen(tokens)
    return method.ranking(
        cut, seen, chosen, lambda revealed: asking([cut.shown(mask)[0] for mask in revealed])[:, chosen]
    )


def _header(picture: Image.Image, prompt: str, model: str, method: Eagle, laps: Laps) -> ResultHeader:
    return ResultHeader(
        visual=torch.empty(0, dtype=torch.long),
        grids=(),
        images=(picture,),
        warnings=[],
        metadata={
            "model": model,
            "settings": result.settings(method),
            "versions": {"dexar_fast": __version__},
            "question": prompt,
            "seconds": laps.seconds,
        },
    )
