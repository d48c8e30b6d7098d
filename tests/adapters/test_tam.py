"""The call of TAM over its authors' own run, round by round: maps, list, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from paths import ROOT
from PIL import Image

from dexar_fast.adapters.tam import TAM
from dexar_fast.errors import FileError, InputError

RUN = ROOT / "tests/methods/activation/reference/tam_llava.npz"
SPECIAL = {"img_id": [4], "prompt_id": [[4], [7, 6]], "answer_id": [[7, 6], -1]}


@pytest.fixture(scope="module")
def theirs() -> dict[str, Any]:
    with np.load(RUN) as found:
        return {name: found[name] for name in found.files}


@pytest.fixture(scope="module")
def logits(theirs: dict[str, Any]) -> list[torch.Tensor]:
    """Of each round: 585 positions of the prompt, then one; with a graph, as a model's own head gives them."""
    head = torch.from_numpy(theirs["lm_head"]).T.requires_grad_()
    rest = torch.from_numpy(theirs["hidden_rest"])
    return [torch.from_numpy(theirs["hidden0"])[None] @ head, *(row[None, None] @ head for row in rest)]


def call(theirs: dict[str, Any], logits: list[torch.Tensor], number: int, records: list[Any], **other: Any) -> Any:
    picture = Image.new("RGB", (336, 336), "grey")
    given = {"tokens": theirs["tokens"].tolist(), "vision_shape": (24, 24), "special_ids": SPECIAL} | other
    names = ("tokens", "vision_shape", "special_ids")
    tokens, shape, special = (given.pop(name) for name in names)
    return TAM(tokens, shape, logits, special, [picture], None, given.pop("save_fn", ""), number, records, **given)


def test_every_round_and_the_list_are_theirs(theirs: dict[str, Any], logits: list[torch.Tensor]) -> None:
    records: list[Any] = []
    for number in range(len(logits)):
        found = call(theirs, logits, number, records)
        assert found.dtype == np.uint8 and len(records) == 5 + number
        assert abs(found.astype(int) - theirs[f"round{number}/map"].astype(int)).max() <= 1
    np.testing.assert_allclose(np.stack(records), theirs["raw_maps"], atol=1e-5)
    assert all(each.dtype == np.float32 for each in records)


def test_a_later_round_with_an_empty_list_is_not_corrected(theirs: dict[str, Any], logits: list[torch.Tensor]) -> None:
    records: list[Any] = []
    found = call(theirs, logits, 3, records)
    raw, target = theirs["raw_maps"][7], int(theirs["tokens"][588])
    np.testing.assert_allclose(records, raw[None], atol=1e-5)
    words = [(logits[0][0, place, target]) for place in (579, 580, 581, 582, 584)]
    text = torch.stack([*words, logits[1][0, 0, target], logits[2][0, 0, target]]).relu().detach().numpy()
    low, high = min(raw.min(), text.min()), max(raw.max(), text.max())
    before = (raw - low) / (high - low)
    assert found.max() <= 255 * before.max() + 1 and found.any()


def test_a_video_and_markers_around_it(theirs: dict[str, Any], logits: list[torch.Tensor]) -> None:
    """The id before the visual tokens, and the one behind them: the same tokens, as frames."""
    around = SPECIAL | {"img_id": [6, 8]}
    found = call(theirs, logits, 0, [], vision_shape=(4, 12, 12), special_ids=around)
    assert found.shape == (4, 12, 12)


def test_a_picture_is_saved_unless_it_is_for_evaluation(
    theirs: dict[str, Any], logits: list[torch.Tensor], tmp_path: Path
) -> None:
    call(theirs, logits, 0, [], save_fn=str(tmp_path / "0.jpg"))
    call(theirs, logits, 0, [], save_fn=str(tmp_path / "1.jpg"), eval_only=True)
    assert [path.name for path in tmp_path.iterdir()] == ["0.jpg"]
    with Image.open(tmp_path / "0.jpg") as drawn:
        assert drawn.size == (336, 336) and len(np.unique(np.asarray(drawn))) > 10
    with pytest.raises(FileError, match="cannot write"):
        call(theirs, logits, 0, [], save_fn=str(tmp_path / "0.nothing"))
    with pytest.raises(InputError, match="saved of one image"):
        call(theirs, logits, 0, [], save_fn=str(tmp_path / "0.jpg"), vision_shape=(4, 12, 12))


@pytest.mark.parametrize(
    ("other", "says"),
    [
        ({"vision_shape": (24, 23)}, r"\(24, 23\) is not that of the 576 visual tokens"),
        ({"special_ids": SPECIAL | {"prompt_id": [[4], [9, 9]]}}, r"the prompt holds no \[9, 9\]"),
        ({"special_ids": {"img_id": [4]}}, 'special_ids hold "img_id" and "prompt_id"'),
        ({"number": 8}, "target_token 8 is no round: there are 8"),
        ({"number": 2, "records": [np.zeros(576, np.float32)]}, "takes the 6 raw maps of the rounds before, not 1"),
    ],
)
def test_what_is_refused(theirs: dict[str, Any], logits: list[torch.Tensor], other: dict[str, Any], says: str) -> None:
    number, records = other.pop("number", 1), other.pop("records", [])
    with pytest.raises(InputError, match=says):
        call(theirs, logits, number, records, **other)


def test_logits_that_are_no_rounds_are_refused(theirs: dict[str, Any], logits: list[torch.Tensor]) -> None:
    for given in ([], [logits[0][0]]):
        with pytest.raises(InputError, match="logit_list holds the logits of each round"):
            call(theirs, given, 0, [])
