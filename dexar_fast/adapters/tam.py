"""The call of TAM's repository (xmed-lab/TAM) over our token activation maps: its list, its uint8 maps.

    from dexar_fast.adapters.tam import TAM      # was: from tam import TAM

It takes the logits of all positions, which cost more than the maps. Where they are made for TAM alone, drop in one
level up: `Explainer(model, processor, method="tam")` reads the rows of the head that count. Not the same: a constant
neighbourhood is filtered to its value (theirs NaN), the least squares are solved in closed form, equal words are equal
ids, a picture with a save path is saved without the page of text that theirs has LaTeX set.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from dexar_fast.errors import FileError, InputError
from dexar_fast.files import write_atomically
from dexar_fast.methods.activation.rank_gaussian import rank_gaussian
from dexar_fast.methods.activation.tam import activation_maps
from dexar_fast.report.drawing.overlay import draw_overlay
from dexar_fast.vision.images import load_image
from dexar_fast.vision.maps import Canvas

Marker = int | Sequence[int]
RawMaps = list[NDArray[np.float32]]


@torch.no_grad()
def TAM(
    tokens: Sequence[int],
    vision_shape: Sequence[int],
    logit_list: Sequence[Tensor],
    special_ids: Mapping[str, Sequence[Marker]],
    vision_input: Any,
    processor: Any,
    save_fn: str,
    target_token: int,
    img_scores_list: RawMaps,
    eval_only: bool = False,
) -> NDArray[np.uint8]:
    """The map of one round of generation, uint8 of `vision_shape`: values in [0, 1] times 255, cut to whole numbers.

    Call it for round 0 first, then for 1, 2, ... with the same list. Round 0 returns the map of what the model would
    write at the prompt's first word, and adds the raw maps of the prompt's words and of its last token to the list, as
    theirs does: answer token 0 has no map of its own there.

    Args:
        tokens: of prompt and answer.
        vision_shape: (rows, columns), or (frames, rows, columns) of a video.
        logit_list: the head's logits of each round: [1, P, vocabulary], then [1, 1, vocabulary].
        special_ids: "img_id" is [id] of the visual tokens, or [the id before, the id behind them]. "prompt_id" is
            [marker before, marker behind] the prompt's words: an id, where it first stands, or a list of ids, where it
            last stands. "answer_id" is not needed: the answer stands behind the prompt.
        vision_input: the picture, or one in a list; read where a picture is saved.
        processor: not needed: words are compared by their ids.
        save_fn: where to save the picture under its map; "" saves nothing.
        target_token: the round.
        img_scores_list: raw maps [N] float32 of the words before; the call adds its own. Empty in a later round:
            nothing is corrected.
        eval_only: True saves nothing.
    Raises:
        InputError: markers that the tokens lack, a shape of another number of visual tokens, a round that there is not,
            or a list of other rounds. FileError: a path that cannot be written.
    """
    said = _Said.of(tokens, vision_shape, logit_list, special_ids)
    if not 0 <= target_token < len(logit_list):
        raise InputError(f"target_token {target_token} is no round: there are {len(logit_list)}")
    found = (_first if target_token == 0 else _later)(said, target_token, img_scores_list)
    heat = rank_gaussian(found.reshape(*vision_shape))
    if save_fn and not eval_only:
        _save(save_fn, vision_input, heat)
    return (255 * heat).to(torch.uint8).numpy()


@dataclass(frozen=True)
class _Said:
    """Ids [S] of prompt and answer, the logits of each round, where N visual tokens and the prompt's W words stand."""

    tokens: Tensor
    logits: Sequence[Tensor]
    visual: Tensor
    words: Tensor

    @classmethod
    def of(cls, tokens: Any, shape: Any, logits: Any, special_ids: Any) -> _Said:
        if not logits or logits[0].ndim != 3:
            raise InputError("logit_list holds the logits of each round: [1, P, vocabulary], then [1, 1, vocabulary]")
        ids, marked, (start, stop) = torch.as_tensor(tokens, device="cpu"), *_marked(special_ids)
        prompt = ids[: logits[0].shape[1]].tolist()
        visual = _visual(prompt, marked)
        if len(visual) != math.prod(shape) or not len(visual):
            raise InputError(
                f"vision_shape {tuple(shape)} is not that of the {len(visual)} visual tokens of the prompt"
            )
        return cls(ids, logits, visual, torch.arange(_place(prompt, start, True), _place(prompt, stop, False)))

    @property
    def last(self) -> int:
        """The prompt's last position: it predicts answer token 0."""
        return self.logits[0].shape[1] - 1

    def raw(self, ids: Tensor) -> Tensor:
        """[N, I] float64: how much the visual positions speak for some ids."""
        rows = self.logits[0][0, self.visual.to(self.logits[0].device)]
        return rows[:, ids.to(rows.device)].cpu().double().relu()

    def text(self, position: int, word: int) -> float:
        """How much a position of text speaks for an id."""
        later = position - self.last
        row = self.logits[later][0, -1] if later > 0 else self.logits[0][0, position]
        return max(float(row[word]), 0.0)


def _first(said: _Said, _: int, records: RawMaps) -> Tensor:
    """[N] of round 0: the prompt's first word, under the id that the model would write there."""
    places = torch.cat([said.words, torch.tensor([said.last])])
    ids = said.tokens[places]
    ids[0] = said.logits[0][0, int(places[0])].argmax()
    raw = said.raw(ids)
    records += [*raw.T.float().numpy()]
    return activation_maps(raw[:, :1], torch.tensor([[said.text(int(places[0]), int(ids[0]))]]).double(), None)[0]


def _later(said: _Said, number: int, records: RawMaps) -> Tensor:
    """[N] of a later round: what the words before explain is taken off, where their maps are in the list."""
    words, target = len(said.words), said.last + 1 + number
    if len(records) not in (0, words + number):
        raise InputError(f"round {number} takes the {words + number} raw maps of the rounds before, not {len(records)}")
    own = said.raw(said.tokens[[target]])
    earlier = np.stack(records, 1) if records else np.zeros((len(own), words + number), np.float32)
    places = [*said.words.tolist(), *range(said.last, target)]
    text = torch.tensor([[said.text(place, int(said.tokens[target]))] for place in places]).double()
    names = torch.cat([said.tokens[said.words], said.tokens[said.last + 1 : target + 1]])
    visual = torch.cat([torch.from_numpy(earlier).double(), own], 1)
    found = activation_maps(visual, text, names if records else None)[0]
    records.append(own[:, 0].float().numpy())
    return found


def _marked(special_ids: Any) -> tuple[Sequence[Marker], tuple[Marker, Marker]]:
    """What marks the visual tokens, and the prompt's words."""
    try:
        start, stop = special_ids["prompt_id"]
        return special_ids["img_id"], (start, stop)
    except (LookupError, TypeError, ValueError) as error:
        raise InputError('special_ids hold "img_id" and "prompt_id", each [marker before, marker behind]') from error


def _visual(prompt: list[int], marked: Sequence[Marker]) -> Tensor:
    if len(marked) == 1:
        (one,) = marked[0] if isinstance(marked[0], Sequence) else marked
        return torch.tensor([place for place, token in enumerate(prompt) if token == one])
    return torch.arange(_place(prompt, marked[0], True), _place(prompt, marked[1], False))


def _place(prompt: list[int], marker: Marker, behind: bool) -> int:
    """Where a marker begins, or the place behind it: an id where it first stands, a list of ids where it last does."""
    several = [*marker] if isinstance(marker, Sequence) else [marker]
    found = [n for n in range(len(prompt)) if prompt[n : n + len(several)] == several]
    if not found:
        raise InputError(f"the prompt holds no {marker}, which special_ids name")
    place = found[-1] if isinstance(marker, Sequence) else found[0]
    return place + len(several) if behind else place


def _save(path: str, picture: Any, heat: Tensor) -> None:
    if heat.ndim != 2:
        raise InputError("a picture is saved of one image: pass save_fn='' for a video, and draw its frames")
    image = load_image(picture[0] if isinstance(picture, list) and len(picture) == 1 else picture)
    shown = draw_overlay(image, Canvas([heat.float().numpy()], [(0, 0, *image.size)], image.size))
    buffer = io.BytesIO()
    try:
        shown.save(buffer, format=Image.registered_extensions()[Path(path).suffix.lower()])
    except (KeyError, ValueError, OSError) as error:
        raise FileError(f"cannot write {path}: {error!r}") from error
    write_atomically(path, buffer.getvalue())
