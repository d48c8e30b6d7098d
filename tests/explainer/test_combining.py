"""Ranks of several methods, their disagreement, and what one answer has over another; maps of one kind of cells at
the places of others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import run
from PIL import Image
from scipy.stats import rankdata

from dexar_fast import Explainer
from dexar_fast.combining import beyond, disagreement, mean_ranks
from dexar_fast.comparison import Comparison
from dexar_fast.errors import InputError
from dexar_fast.explanation import Explanation
from dexar_fast.vision import sampling
from dexar_fast.vision.grid import Grid
from dexar_fast.vision.regions import Regions

IMAGE, PROMPT, ANSWER = "dexar_fast/assets/sample.png", "Describe the image.", " A red triangle."


@pytest.fixture(scope="module")
def embedded() -> Explainer:
    return Explainer.from_pretrained()


@pytest.fixture(scope="module")
def compared(embedded: Explainer) -> Comparison:
    return embedded.compare(IMAGE, PROMPT, ["dex-ar", "tam", "input-gradient"], ANSWER)


def test_ranks_are_averaged(compared: Comparison) -> None:
    found, spread = compared.mean_ranks(), compared.disagreement()
    last = len(found.sequence_map) - 1
    for t, row in enumerate([found.sequence_map, *found.token_maps]):
        maps = [each.sequence_map if t == 0 else each.token_maps[t - 1] for each in compared]
        ranks = np.stack([(rankdata(each.numpy()) - 1) / last for each in maps])
        np.testing.assert_allclose(row, ranks.mean(0), atol=1e-6)
        np.testing.assert_allclose(spread.sequence_map if t == 0 else spread.token_maps[t - 1], ranks.std(0), atol=1e-6)
    assert found.metadata["settings"] == {"method": "mean-ranks", "methods": compared.names}
    assert "dex-ar, tam, input-gradient" in found.diagnostics["notes"][0] and found.weighted is False


def test_an_ensemble_is_saved_and_drawn(compared: Comparison, tmp_path: Path) -> None:
    found = compared.with_ensemble()
    assert found.names[-2:] == ["mean of ranks", "disagreement"]
    assert found.picture().width == 1200
    found.to_html(tmp_path / "page.html")
    assert "standard deviation of its rank" in (tmp_path / "page.html").read_text()
    found[3].save(tmp_path / "ranks.safetensors")
    assert torch.equal(Explanation.load(tmp_path / "ranks.safetensors").sequence_map, found[3].sequence_map)


def test_regions_are_read_at_the_visual_tokens(embedded: Explainer) -> None:
    """The half that occlusion finds has the higher rank in all of its cells."""
    labels = np.repeat([[0, 1]], 2, 0)
    regions = Regions(0, 0, labels.astype(np.int32))
    grid = Grid(0, 0, 4, 4, box=(0.0, 0.0, 80.0, 40.0))
    assert sampling.places([grid], 16, [regions], [(80, 40)]).reshape(4, 4).tolist() == [[0, 0, 1, 1]] * 4
    found = embedded.compare(IMAGE, PROMPT, ["dex-ar", "occlusion:regions=4"], ANSWER).mean_ranks()
    assert found.grids[0].rows == found.grids[0].columns == 12 and found.values == "visual tokens"


def test_places_by_hand() -> None:
    """A cropped target, a finer source over a coarser one, newline values, and what lies outside."""
    target = Grid(0, 0, 2, 2, box=(10.0, 0.0, 30.0, 20.0), row_stride=3)
    whole, tile = Grid(0, 0, 1, 2), Grid(0, 2, 2, 2, box=(20.0, 0.0, 30.0, 20.0), row_stride=3)
    found = sampling.places([target], 6, [tile, whole], [(40, 20)])
    assert found.tolist() == [0, 3, -1, 0, 6, -1]  # the centres of the right cells lie at x = 25: column 1 of the tile
    assert sampling.places([target], 6, [Grid(1, 0, 1, 1)], [(40, 20)]).tolist() == [-1] * 6
    assert sampling.finest([(Regions(0, 0, np.zeros((2, 2), np.int32)),), (target,)]) == 1
    assert sampling.finest([(whole,), (whole, tile), (target,)]) == 1


def test_what_one_answer_has_over_another(embedded: Explainer) -> None:
    found = embedded.difference(IMAGE, PROMPT, " A red triangle.", " A blue square.")
    one, other = embedded.explain_many(IMAGE, [PROMPT], [[" A red triangle.", " A blue square."]])
    shares = [each.sequence_map / each.sequence_map.sum() for each in (one, other)]
    torch.testing.assert_close(found[0].sequence_map, (shares[0] - shares[1]).relu())
    torch.testing.assert_close(found[1].sequence_map, (shares[1] - shares[0]).relu())
    triangle = one.token_maps[2] / one.token_maps[2].sum()
    torch.testing.assert_close(found[0].token_maps[2], (triangle - shares[1]).relu())
    assert (
        found.names == ["A red triangle.", "A blue square."] and "'A blue square.'" in found[0].diagnostics["notes"][0]
    )
    assert found.picture().width == 1200


def test_two_answers_that_are_one_are_refused(embedded: Explainer) -> None:
    with pytest.raises(InputError, match="the two answers are the same"):
        embedded.difference(IMAGE, PROMPT, ANSWER, ANSWER)
    with pytest.raises(InputError, match="texts of two answers"):
        embedded.difference(IMAGE, PROMPT, ANSWER, None)  # type: ignore[arg-type]


def test_what_does_not_combine_is_refused(embedded: Explainer, compared: Comparison) -> None:
    with pytest.raises(InputError, match="two explanations or more, not 1"):
        mean_ranks([compared[0]], ["dex-ar"])
    other = embedded.explain(IMAGE, PROMPT, " A blue square.")
    with pytest.raises(InputError, match="different answers"):
        disagreement([compared[0], other], ["one", "other"])
    larger = embedded.explain(Image.new("RGB", (200, 100)), PROMPT, ANSWER)
    with pytest.raises(InputError, match="different pictures"):
        mean_ranks([compared[0], larger], ["one", "other"])
    regions = embedded.with_method("occlusion:regions=4").explain(IMAGE, PROMPT, ANSWER)
    with pytest.raises(InputError, match="different cells"):
        beyond(regions, other)


def test_ranks_need_no_picture(embedded: Explainer) -> None:
    inputs = embedded.processor(images=Image.open(IMAGE), text="<image> What?", return_tensors="pt")
    asked = inputs, torch.tensor([5, 6])
    both = [embedded.with_method(name).explain_inputs(*asked) for name in ("dex-ar", "input-gradient")]
    expected = np.mean([rankdata(each.sequence_map.numpy()) - 1 for each in both], 0) / 143
    np.testing.assert_allclose(mean_ranks(both, ["a", "b"]).sequence_map, expected, atol=1e-6)
    shown = embedded.explain_inputs(*asked, images=Image.open(IMAGE))
    with pytest.raises(InputError, match="some of them hold none"):
        mean_ranks([shown, both[1]], ["a", "b"])


def test_a_map_without_a_place_has_no_ranks(embedded: Explainer) -> None:
    inputs = embedded.processor(images=Image.open(IMAGE), text="<image> What?", return_tensors="pt")
    found = embedded.explain_inputs(inputs, torch.tensor([5, 6]))
    placeless = Explanation(**{name: getattr(found, name) for name in found.__dataclass_fields__} | {"grids": ()})
    with pytest.raises(InputError, match="no place"):
        mean_ranks([placeless, placeless], ["a", "b"])


def test_the_command_line_adds_an_ensemble(tmp_path: Path) -> None:
    wanted = ["--methods", "dex-ar,tam", "--ensemble", "--response", ANSWER, "--out", str(tmp_path)]
    result = run("compare", IMAGE, PROMPT, *wanted)
    assert result.exit_code == 0, result.output
    names = {"compare.html", "compare.png", "dex-ar", "tam", "mean-of-ranks", "disagreement"}
    assert {path.name.removesuffix(".safetensors") for path in tmp_path.iterdir()} == names
    assert run("compare", IMAGE, PROMPT, *wanted, "--force").exit_code == 0
