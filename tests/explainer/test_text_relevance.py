"""Which earlier words each token rests on: against the definition in float64, streamed, saved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import zoo
from oracle import oracle

from dexar_fast import Explainer, InputError, NumericalError
from dexar_fast.explanation import Explanation
from dexar_fast.results.text_relevance import TextRelevance

FAMILIES = ("llava", "qwen2_5_vl", "gemma3", "paligemma2", "internvl", "llava_next", "qwen3_vl_moe")


def answer(family: str, tokens: int) -> tuple[Any, zoo.Inputs, torch.Tensor]:
    model, inputs = zoo.build(family)
    given = {name: value for name, value in inputs.items() if name != "labels"}
    return model, given, torch.tensor(zoo.Draw(5).words(tokens))


def defined(model: Any, inputs: zoo.Inputs, ids: torch.Tensor, text_set: str = "all", **knobs: Any) -> dict[str, Any]:
    """R and the plain sum over all keys of the sequence, from every gradient."""
    found = oracle(model, inputs, ids, return_gradients=True, text_set=text_set, **knobs)
    weights = (found["text_scores"] - found["visual_scores"]).relu()
    gradients = found["gradients"]
    return {"maps": torch.einsum("tlh,tlhj->tj", weights, gradients), "unfiltered_maps": gradients.sum((1, 2))}


def check(found: TextRelevance, expected: dict[str, Any], prompt: int) -> None:
    for name, whole in expected.items():
        wanted = whole[:, found.positions]
        torch.testing.assert_close(getattr(found, name).double(), wanted, rtol=1e-9, atol=1e-9 * float(wanted.max()))
    assert (found.positions[1:] > found.positions[:-1]).all()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("chunk_size", [2, None])
def test_it_is_what_is_defined(family: str, chunk_size: int | None) -> None:
    model, inputs, ids = answer(family, 5)
    explainer = Explainer(model, text_relevance=True, chunk_size=chunk_size)
    expected = defined(model, inputs, ids)
    for _ in range(2):  # by autograd, then by formula and in one forward
        found = explainer.explain_inputs(inputs, ids).text_relevance
        assert found is not None
        check(found, expected, inputs["input_ids"].shape[1])
        assert found.tokens == [str(i) for i in torch.cat([inputs["input_ids"][0], ids])[found.positions].tolist()]


@pytest.mark.parametrize(
    "knobs", [{"text_set": "prompt"}, {"head_score": "mean"}, {"layers": [1]}, {"map_filter": ("rank", 5)}]
)
def test_knobs(knobs: dict[str, Any]) -> None:
    model, inputs, ids = answer("llava", 4)
    found = Explainer(model, text_relevance=True, **knobs).explain_inputs(inputs, ids).text_relevance
    assert found is not None
    swapped = {name: value for name, value in knobs.items() if name != "map_filter"}
    check(found, defined(model, inputs, ids, **swapped), inputs["input_ids"].shape[1])


def test_it_is_not_there_unless_asked_for() -> None:
    model, inputs, ids = answer("llava", 2)
    assert Explainer(model).explain_inputs(inputs, ids).text_relevance is None


def test_pieces_of_a_stream_join_to_the_whole() -> None:
    model, inputs, _ = answer("llava", 1)
    explainer = Explainer(model, text_relevance=True)
    stream = explainer.stream_inputs(inputs, chunk_size=2, max_new_tokens=5, min_new_tokens=5, do_sample=False)
    pieces = [piece.text_relevance for piece in stream]
    whole = stream.explanation().text_relevance
    assert whole is not None and [len(piece.maps) for piece in pieces] == [2, 2, 1]
    rows = torch.cat([torch.nn.functional.pad(p.maps, (0, whole.maps.shape[1] - p.maps.shape[1])) for p in pieces])
    assert torch.equal(rows, whole.maps)


@pytest.mark.parametrize("as_folder", [False, True])
def test_it_is_saved_exactly(tmp_path: Path, as_folder: bool) -> None:
    model, inputs, _ = answer("llava", 1)
    explainer = Explainer(model, text_relevance=True)
    out = tmp_path / "out" if as_folder else None
    made = explainer.explain_inputs(inputs, out=out, max_new_tokens=4, min_new_tokens=4, do_sample=False)
    if out is None:
        made.save(out := tmp_path / "one.safetensors")
    kept, found = made.text_relevance, Explanation.load(out).text_relevance
    assert kept is not None and found is not None and found.tokens == kept.tokens
    for name in ("positions", "maps", "unfiltered_maps"):
        assert torch.equal(getattr(found, name), getattr(kept, name))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"positions": torch.arange(3.0)}, "positions .M. of int64"),
        ({"positions": torch.tensor([0, 2, 2])}, "ascending positions"),
        ({"positions": torch.tensor([-1, 0, 1])}, "ascending positions"),
        ({"maps": torch.zeros(2, 4)}, "of one shape"),
        ({"tokens": ["a"]}, "one text per position"),
        ({"maps": [[0.0]]}, "torch tensors on the CPU"),
    ],
)
def test_what_does_not_fit_is_refused(changed: dict[str, Any], message: str) -> None:
    fitting = {"positions": torch.arange(3), "tokens": ["a", "b", "c"]}
    fitting |= {"maps": torch.zeros(2, 3), "unfiltered_maps": torch.zeros(2, 3)}
    TextRelevance(**fitting)
    with pytest.raises(InputError, match=message):
        TextRelevance(**(fitting | changed))
    with pytest.raises(NumericalError):
        TextRelevance(**(fitting | {"maps": torch.full((2, 3), torch.inf)}))
