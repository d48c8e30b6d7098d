"""The table of bad input: prompts and answers."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import bad_input
import pytest
import small_llava
import torch
from bad_input import ANSWER, PICTURE, PROCESSOR, PROMPT, TOKENIZER, Case, Row
from small_llava import BOS, EOS, IMAGE

from dexar_fast import Explainer, Explanation

UNFINISHED = "\ufffd"
RIGHT_TO_LEFT = "צבע 🙂 مرحبا"
EMOJI = "👩‍👩‍👧 🏳️‍🌈 e\u0301"
USER = {"role": "user", "content": PROMPT}
LONG_CONTEXT = 12_000


def asked(prompt: str, answer: str | None = ANSWER, like: bad_input.Call | None = None) -> Callable[[Path], list[Case]]:
    """The prompt and the answer about the picture."""

    def cases(folder: Path) -> list[Case]:
        PICTURE.save(folder / "a.png")
        options = [] if answer is None else ["--response", answer]
        return [
            Case(partial(bad_input.explain, PICTURE, prompt, answer), like, [str(folder / "a.png"), prompt, *options])
        ]

    return cases


def by_ids(prompt: str, answer: str) -> bad_input.Call:
    """The same explanation from a prompt as the model reads it, and from the ids of the answer."""

    def explain() -> Explanation:
        inputs = PROCESSOR(images=PICTURE, text=prompt, return_tensors="pt")
        ids = TOKENIZER(answer, add_special_tokens=False).input_ids
        return Explainer(bad_input.MODEL, PROCESSOR).explain_inputs(inputs, ids, images=PICTURE)

    return explain


def templated(prompt: str) -> str:
    return f"USER: {IMAGE}\n{prompt} ASSISTANT:"


def by_template(template: Any) -> Callable[[Path], list[Case]]:
    """The prompt and the answer by another chat template."""
    processor = small_llava.processor(TOKENIZER, template)
    return lambda folder: [Case(lambda: Explainer(bad_input.MODEL, processor).explain(PICTURE, PROMPT, ANSWER))]


def said(messages: list[dict[str, Any]], picture: Any = None) -> Callable[[Path], list[Case]]:
    """Chat messages with the picture beside them."""
    return lambda folder: [Case(lambda: Explainer(bad_input.MODEL, PROCESSOR).explain(picture, messages, ANSWER))]


def merging() -> Callable[[Path], list[Case]]:
    """Behind the prompt 'im', 'age' would become one token with it."""
    prompt = f"{IMAGE} im"
    assert TOKENIZER(f"{prompt}age").input_ids != TOKENIZER(prompt).input_ids + TOKENIZER("age").input_ids[1:]
    return asked(prompt, "age", by_ids(prompt, "age"))


def handed_over(answer: Any) -> Callable[[Path], list[Case]]:
    """An answer as another tool wrote it."""
    return lambda folder: [Case(partial(bad_input.explain, PICTURE, PROMPT, answer))]


def ten_thousand_words(context: int) -> list[Case]:
    model = small_llava.model(TOKENIZER, context)
    return [Case(lambda: Explainer(model, PROCESSOR).explain(PICTURE, "cat " * 10_000, ANSWER))]


ROWS = {
    "prompt with special tokens inside": Row(
        "explained",
        ("they are the special tokens they name",),
        asked(f"a {EOS}{BOS} b", like=by_ids(templated(f"a {EOS}{BOS} b"), f" {ANSWER}")),
    ),
    "prompt or answer right-to-left": Row(
        "explained",
        ("in logical order",),
        asked(RIGHT_TO_LEFT, RIGHT_TO_LEFT, by_ids(templated(RIGHT_TO_LEFT), f" {RIGHT_TO_LEFT}")),
    ),
    "prompt or answer with emoji": Row(
        "explained",
        ("a character is the text of its last token",),
        asked(EMOJI, EMOJI, by_ids(templated(EMOJI), f" {EMOJI}")),
    ),
    "prompt of 10,000 words": Row(
        "explained", ("where the model's context holds them",), lambda folder: ten_thousand_words(LONG_CONTEXT)
    ),
    "prompt beyond the context": Row(
        "InputError", ("more than the model's context of 256: shorten the answer",), asked("cat " * 10_000)
    ),
    "answer beyond the context": Row(
        "InputError", ("more than the model's context of 256: shorten the answer",), asked(PROMPT, "cat " * 300)
    ),
    "prompt empty or only spaces": Row(
        "InputError",
        ("the prompt is empty: ask the model something",),
        lambda folder: [case for prompt in ("", " \n\t\u3000") for case in asked(prompt)(folder)],
    ),
    "answer empty or only spaces": Row(
        "InputError",
        ("the answer is empty: give response= some text",),
        lambda folder: [case for answer in ("", " \n") for case in asked(PROMPT, answer)(folder)],
    ),
    "answer with special tokens inside": Row(
        "explained",
        ("they are the special tokens they name",),
        asked(PROMPT, f"the cat{EOS}", by_ids(templated(PROMPT), f" the cat{EOS}")),
    ),
    "answer with the image token": Row(
        "InputError", ("target_ids hold the model's image token: an answer is text",), asked(PROMPT, f"a {IMAGE}")
    ),
    "answer of generate() with several sequences": Row(
        "InputError",
        ("generate() returned 2 sequences: pass the one that is to be explained",),
        handed_over(torch.tensor([[5, 6], [7, 8]])),
    ),
    "answer of generate() to another prompt": Row(
        "InputError",
        ("generate() answered another prompt", "do not begin with this prompt"),
        handed_over(torch.tensor([[5, TOKENIZER.convert_tokens_to_ids(IMAGE), 6]])),
    ),
    "answer of a server by another tokenizer's ids": Row(
        "InputError",
        ("the answer's text is", "another tokenizer's"),
        handed_over({"text": "the dog", "output_ids": TOKENIZER(ANSWER).input_ids, "meta_info": {}}),
    ),
    "answer that tokenises differently in context": Row(
        "explained",
        ("the tokens it has behind the prompt",),
        asked(PROMPT, "the cat", by_ids(templated(PROMPT), " the cat")),
    ),
    "answer that merges with the prompt's last token": Row("explained", ("the tokens it has alone",), merging()),
    "prompt with the image token of another model": Row(
        "warned", ("'<|image_pad|>', which stands for an image in other models",), asked("<|image_pad|> what is it")
    ),
    "chat template that writes no image": Row(
        "InputError",
        ("the chat template leaves out the image: write the whole prompt",),
        by_template(small_llava.TEMPLATE.replace("'<image>\n'", "''")),
    ),
    "chat template for text alone": Row(
        "warned",
        ("the chat template takes text alone: the image token '<image>' stands before it",),
        by_template("{{ messages[0]['content'] }}"),
    ),
    "chat template that fails": Row(
        "InputError",
        ("the chat template fails (no images here)",),
        by_template("{{ raise_exception('no images here') }}"),
    ),
    "chat templates without a default": Row(
        "InputError",
        ("the chat templates are called 'rag', and none 'default': set processor.chat_template",),
        by_template({"rag": small_llava.TEMPLATE}),
    ),
    "answer that never ends the thought which the prompt opens": Row(
        "warned",
        ("the prompt ends in <think>, and the answer holds no </think>",),
        by_template(small_llava.TEMPLATE.replace("'ASSISTANT:'", "'ASSISTANT: <think>\n'")),
    ),
    "chat messages without a picture": Row("ImageError", ("no image: pass a path",), said([USER])),
    "chat messages with more places than pictures": Row(
        "InputError",
        ("the messages have places for 2 image(s), and 1 came beside them",),
        said([{"role": "user", "content": [{"type": "image"}] * 2 + [{"type": "text", "text": PROMPT}]}], PICTURE),
    ),
    "chat messages with a video": Row(
        "InputError",
        ("message 0 holds video: messages hold text and images; use explain_inputs()",),
        said([{"role": "user", "content": [{"type": "video", "video": "a.mp4"}]}]),
    ),
    "chat messages in which the user says nothing": Row(
        "InputError", ("the prompt is empty: ask the model something",), said([{**USER, "role": "system"}], PICTURE)
    ),
    "prompt that is not Unicode": Row(
        "InputError", ("the prompt is not valid Unicode: pass it as UTF-8",), asked("caf\udce9")
    ),
}


@pytest.mark.parametrize("row", ROWS)
def test_text(row: str, tmp_path: Path, model_folder: Path) -> None:
    bad_input.check(ROWS[row], tmp_path, model_folder)


def test_the_answer_in_context_has_other_tokens_than_alone() -> None:
    """What makes the row of the answer that tokenises differently able to fail."""
    alone = TOKENIZER("the cat", add_special_tokens=False).input_ids
    assert bad_input.explain(response="the cat").token_ids.tolist() != alone


@pytest.mark.parametrize("answer", [RIGHT_TO_LEFT, EMOJI])
def test_no_character_is_broken_across_tokens(answer: str) -> None:
    found = bad_input.explain(response=answer)
    assert "".join(found.tokens) == f" {answer}"
    assert len(found) > len(answer)  # characters of several tokens
    assert not any(UNFINISHED in piece for piece in found.tokens)


def test_of_ten_thousand_words_each_counts_as_text() -> None:
    (case,) = ten_thousand_words(LONG_CONTEXT)
    found = case.explain()
    assert found.metadata["prompt_tokens"] > 10_000
    assert torch.isfinite(found.text_scores).all() and found.text_scores.any()
