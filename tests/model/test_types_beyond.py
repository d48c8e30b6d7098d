"""The brute force for the types whose image is read beyond the prompt's ids is that of the models themselves."""

from __future__ import annotations

from collections.abc import Callable

import calls_oracle
import pytest
import torch
from types_beyond import BEYOND, Beyond

TARGETS = torch.tensor([20, 31, 44])
MERGED = {"t5gemma2"}


@pytest.fixture(autouse=True)
def one_thread(threads: Callable[[int], None]) -> None:
    threads(1)


@pytest.mark.parametrize("name", BEYOND)
def test_its_forward_is_the_models_own(name: str) -> None:
    beyond = BEYOND[name]()
    with torch.no_grad():
        own = calls_oracle.forward(beyond, TARGETS)
        calls, _, logits = calls_oracle.record(beyond, TARGETS)
    torch.testing.assert_close(logits, own, rtol=0, atol=1e-12 * float(own.abs().max()))
    assert own.dtype == torch.float64 and own.shape[1] == beyond.first + 1 + len(TARGETS)
    for call in calls:
        read = call.seen.any(-1)  # of idefics' rows before any image none: a gate closes them
        assert not call.attention[..., read, :][..., ~call.seen[read]].any()
        causal(beyond, call)


def causal(beyond: Beyond, call: calls_oracle.Call) -> None:
    """A query sees no later position. Of other keys it may see all, those of its own picture included."""
    answer = call.seen[beyond.first :, : call.seen.shape[0]]
    if call.seen.shape[0] == call.seen.shape[1]:
        assert torch.equal(answer, torch.ones_like(answer).tril(beyond.first))


@pytest.mark.parametrize("name", BEYOND)
def test_one_forward_of_prompt_and_answer_is_what_generate_runs(name: str) -> None:
    """Its logits are float32's, whatever the model's."""
    beyond = BEYOND[name]()
    asked = {name: each.clone() for name, each in beyond.inputs.items()}
    more = {"max_new_tokens": 3, "min_new_tokens": 3, "do_sample": False}
    with torch.no_grad():
        written = beyond.model.generate(**asked, **more, return_dict_in_generate=True, output_logits=True)
        ids = written.sequences[0, -3:]
        logits = calls_oracle.forward(beyond, ids)[0, beyond.first : beyond.first + 3]
    assert torch.equal(written.sequences[:, :-3], beyond.prompt)
    torch.testing.assert_close(torch.cat(written.logits), logits.float(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", BEYOND)
def test_image_and_text_meet_as_the_definitions_say(name: str) -> None:
    beyond = BEYOND[name]()
    found = calls_oracle.expected(beyond, TARGETS)
    image, text, weights = (found[key] for key in ("visual_scores", "text_scores", "head_weights"))
    assert found["token_maps"].any() and found["unfiltered_token_maps"].any()
    if beyond.among_encoder is not None and beyond.among_encoder.all() and name not in MERGED:
        reads_image = image.amax((0, 2)) > 0  # definition A: a call reads the image or the text
        assert reads_image.any() and not text[:, reads_image].any()
        assert torch.equal(weights[:, reads_image], image[:, reads_image]) and not weights[:, ~reads_image].any()
    delta = (image.amax((1, 2)) - text.amax((1, 2))).relu()
    assert torch.equal(found["token_weights"], delta)


ROUNDED = {"idefics", "mllama", "t5gemma2"}  # norms in float32: only a wide step is above their rounding


@pytest.mark.parametrize("name", ["blip", "git", "vision-encoder-decoder/trocr", *sorted(ROUNDED)])
def test_its_gradients_are_the_differences_of_two_forwards(name: str) -> None:
    """A self call in front of a cross call reaches the lens through the cross call's query too."""
    beyond, t = BEYOND[name](), 1
    step, bound = (1e-2, 1e-3) if name in ROUNDED else (1e-5, 1e-7)
    with torch.no_grad():
        calls, _, _ = calls_oracle.record(beyond, TARGETS)
    for index, (gradient, _) in enumerate(calls_oracle.gradients(beyond, TARGETS)):
        head, key = divmod(int(gradient[t].argmax()), gradient.shape[-1])
        difference = calls_oracle.difference(beyond, TARGETS, t, calls, (index, head, key), step)
        torch.testing.assert_close(difference, float(gradient[t, head, key]), rtol=bound, atol=0)
