"""Methods of attention go along with an answer: each token's map is that of the whole explanation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import zoo
from torch import Tensor

from dexar_fast import Explainer, InputError, InternalError, ModelError
from dexar_fast.attribution.calls.gradients import CallGradients
from dexar_fast.explanation import Explanation
from dexar_fast.generation.stream import Stream
from dexar_fast.methods import Attention, AttentionGradient
from dexar_fast.methods.base import Method, Streaming

# Sliding windows, M-RoPE, prompts that read ahead, soft caps
FAMILIES = ["llava", "bakllava", "qwen2_5_vl", "qwen2_5_vl_video", "internvl", "gemma3", "paligemma2"]
METHODS = [Attention(), Attention(layers=(0, -2)), AttentionGradient(), AttentionGradient(layers=(1,))]
TOKENS = 7
GREEDY = {"do_sample": False, "max_new_tokens": TOKENS, "min_new_tokens": TOKENS}


def built(family: str) -> tuple[Any, zoo.Inputs]:
    model, inputs = zoo.build(family, torch.float32)
    return model, {name: value for name, value in inputs.items() if name != "labels"}


def assert_close(found: Tensor, wanted: Tensor) -> None:
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5 * float(wanted.max()))


@pytest.mark.parametrize("family", FAMILIES)
def test_pieces_are_parts_of_the_whole_explanation(family: str) -> None:
    model, inputs = built(family)
    for method in METHODS:
        explainer = Explainer(model, method=method)
        for size in (1, 3):
            stream = explainer.stream_inputs(inputs, chunk_size=size, **GREEDY)
            pieces = list(stream)
            assert [len(piece) for piece in pieces] == [1] * 7 if size == 1 else [3, 3, 1]
            assert [piece.first for piece in pieces] == [*range(0, TOKENS, size)]
            assert_same(pieces, stream.explanation(), Explainer(model, method=method).explain_inputs(inputs, **GREEDY))


def assert_same(pieces: list[Any], streamed: Explanation, whole: Explanation) -> None:
    assert float(whole.token_maps.max()) > 0
    for name in ("token_maps", "unfiltered_token_maps"):
        assert_close(torch.cat([getattr(piece, name) for piece in pieces]), getattr(whole, name))
        assert_close(getattr(streamed, name), getattr(whole, name))
    assert_close(streamed.sequence_map, whole.sequence_map)
    for piece in pieces:
        assert_close(piece.sequence_map, piece.token_maps.sum(0))
        assert piece.diagnostics == whole.diagnostics and not piece.weighted and not piece.metadata["complete"]
    assert torch.equal(streamed.token_ids, whole.token_ids) and streamed.tokens == whole.tokens
    assert streamed.grids == whole.grids and streamed.diagnostics == whole.diagnostics
    assert streamed.metadata | {"seconds": 0} == whole.metadata | {"seconds": 0}


def test_a_prompt_may_end_with_its_image() -> None:
    """Then its last token, which the first map belongs to, is more than its id."""
    model, inputs = built("llava")
    end, shape = int((inputs["input_ids"][0] == zoo.IMAGE).nonzero().max()) + 1, inputs["input_ids"].shape
    inputs = {name: value[:, :end] if value.shape == shape else value for name, value in inputs.items()}
    for method in METHODS:
        stream = Explainer(model, method=method).stream_inputs(inputs, chunk_size=2, **GREEDY)
        pieces = list(stream)
        assert_same(pieces, stream.explanation(), Explainer(model, method=method).explain_inputs(inputs, **GREEDY))


def failing(*_: Any, **__: Any) -> Any:
    raise AssertionError("a gradient")


def test_raw_attention_takes_no_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    model, inputs = built("llava")
    monkeypatch.setattr(CallGradients, "of", failing)
    assert len(list(Explainer(model, method=Attention()).stream_inputs(inputs, chunk_size=3, **GREEDY))) == 3
    with pytest.raises(InternalError, match="a gradient"):
        list(Explainer(model, method=AttentionGradient()).stream_inputs(inputs, chunk_size=3, **GREEDY))


def opened(method: Method | str, tokens: int = TOKENS) -> Stream:
    model, inputs = built("llava")
    length = {"max_new_tokens": tokens, "min_new_tokens": tokens}
    return Explainer(model, method=method).stream_inputs(inputs, chunk_size=3, **GREEDY | length)


@pytest.mark.parametrize("method", [Attention(), AttentionGradient()], ids=str)
def test_what_was_read_stays_when_a_stream_is_closed(method: Method) -> None:
    """The next piece may be written by then, and what little follows it."""
    stream = opened(method, 40)
    with pytest.raises(InputError, match="no token is explained yet"):
        stream.explanation()
    with stream:
        first = next(stream)
        so_far = stream.explanation()
        assert torch.equal(so_far.token_maps[: len(first)], first.token_maps)
    found = stream.explanation()
    assert 3 <= len(found) < 12 and not found.metadata["complete"]
    assert torch.equal(found.token_maps[:3], first.token_maps)


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_a_pool_holds_the_prompt_of_a_stream(method: Method) -> None:
    kvcache = pytest.importorskip("dexar_fast.kvcache.pool")
    model, inputs = built("llava")
    plain = list(Explainer(model, method=method).stream_inputs(inputs, chunk_size=3, **GREEDY))
    explainer = Explainer(model, method=method, pool=kvcache.KVPool(200))
    for _ in range(2):
        pieces = list(explainer.stream_inputs(inputs, chunk_size=3, **GREEDY))
        for piece, other in zip(pieces, plain, strict=True):
            assert_close(piece.token_maps, other.token_maps)


WHOLE = ["eagle", "tam", "llava-cam", "relevancy", "rollout", "uniform", "attention-gradient:of=final"]


@pytest.mark.parametrize("method", WHOLE)
def test_a_method_that_takes_the_answer_as_a_whole_is_refused_by_its_name(method: str) -> None:
    with pytest.raises(InputError, match=f"{method.partition(':')[0]}'.* explains an answer as a whole: use explain"):
        opened(method)


def test_only_of_the_layers_own_lens_can_a_gradient_be_streamed() -> None:
    with pytest.raises(
        InputError, match=r"'attention-gradient' with .*of='final'.* as a whole.*or 'attention-gradient'"
    ):
        opened(AttentionGradient(of="final"))
    assert isinstance(AttentionGradient(), Streaming) and AttentionGradient().streams


def test_a_folder_is_refused(tmp_path: Path) -> None:
    model, inputs = built("llava")
    with pytest.raises(InputError, match="'attention' streams without a folder: leave out= out"):
        Explainer(model, method="attention").stream_inputs(inputs, out=tmp_path / "out", **GREEDY)
    assert not (tmp_path / "out").exists()


def test_maps_that_are_no_numbers_end_the_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "dexar_fast.methods.attention.raw.mean_attention",
        lambda call, rows: torch.full((rows.stop - rows.start, call.key.shape[2]), torch.nan),
    )
    with pytest.raises(ModelError, match="token_maps that hold NaN"):
        next(opened(Attention()))
