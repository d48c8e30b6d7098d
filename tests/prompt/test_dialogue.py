"""A prompt behind an answer keeps the ids with which the answer was written, where its end can be told."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import small_llava
import torch
from small_llava import BOS, IMAGE, TEMPLATE

from dexar_fast import InputError
from dexar_fast.prompt import dialogue, request
from dexar_fast.prompt.dialogue import REWRITTEN, Said
from dexar_fast.prompt.request import Request

PICTURE = small_llava.noise()
TOKENIZER = small_llava.byte_level()
MODEL = small_llava.model(TOKENIZER)
FIRST, SECOND = "what is it", "and the dog"
GLUED = TEMPLATE.replace("part['text'] + ' '", "part['text'] + ('t ' if message['role'] == 'assistant' else ' ')")
TAMES = TEMPLATE.replace("part['text'] + ' '", "part['text'] | replace('cat', 'dog') + ' '")
BEGINS_ANEW = TEMPLATE.replace("{% for message", "{{ messages | length | string + ' ' }}{% for message", 1)


def read(processor: Any, messages: list[Any]) -> Request:
    return request.read(processor, [PICTURE], messages, None, with_content=True)


def asked(processor: Any) -> Request:
    return read(processor, [dialogue.question(processor, FIRST, 1)])


def said(processor: Any, answer: list[int]) -> Said:
    return Said.of(MODEL, processor, None, FIRST, asked(processor), torch.tensor(answer))


def followed(processor: Any, answer: list[int]) -> tuple[Said, Request]:
    """What was said when the answer has been written, and the request of the next question."""
    before = said(processor, answer)
    later = read(processor, [*before.messages, dialogue.question(processor, SECOND, 0)])
    return before, before.followed_by(processor, later)


def spelt(text: str) -> list[int]:
    """The ids of a text letter by letter, as no tokenizer would write it."""
    return [TOKENIZER.convert_tokens_to_ids("Ġ" if letter == " " else letter) for letter in text]


@pytest.mark.parametrize("template", [TEMPLATE, small_llava.TEMPLATE_WITH_BOS])
def test_an_answer_spelt_otherwise_keeps_its_ids(template: str) -> None:
    processor = small_llava.processor(TOKENIZER, template)
    answer = spelt(" the cat")
    before, found = followed(processor, answer)
    prompt = asked(processor).ids
    rest = TOKENIZER(before.answer, add_special_tokens=False).input_ids
    assert found.ids[: len(prompt) + len(answer)] == [*prompt, *answer]
    assert rest != answer and found.warnings == ()
    told = TOKENIZER.decode(found.ids[len(prompt) + len(answer) :])
    assert told.split() == f"USER: {SECOND} ASSISTANT:".split()
    assert {name: x.shape[1] for name, x in found.inputs.items() if name != "pixel_values"} == dict.fromkeys(
        ("input_ids", "attention_mask"), len(found.ids)
    )
    assert bool((found.inputs["attention_mask"] == 1).all())


def test_the_users_words_are_found_behind_such_an_answer() -> None:
    _, found = followed(small_llava.processor(TOKENIZER), spelt(" the cat"))
    assert found.content is not None
    words = [found.ids[place] for place in found.content.tolist()]
    assert TOKENIZER.decode(words) == f"{FIRST} {SECOND}"


def test_an_answer_that_the_template_tells_alike_changes_nothing() -> None:
    processor = small_llava.processor(TOKENIZER)
    before = said(processor, TOKENIZER(" the cat", add_special_tokens=False).input_ids)
    later = read(processor, [*before.messages, dialogue.question(processor, SECOND, 0)])
    assert before.followed_by(processor, later) is later


@pytest.mark.parametrize("answer", [" the cat ", " the\ncat", "the cat"])
def test_white_space_around_an_answer_is_kept_as_it_was_written(answer: str) -> None:
    ids = TOKENIZER(answer, add_special_tokens=False).input_ids
    processor = small_llava.processor(TOKENIZER)
    _, found = followed(processor, ids)
    length = len(asked(processor).ids)
    assert found.ids[length : length + len(ids)] == ids and found.warnings == ()


@pytest.mark.parametrize(
    ("template", "answer"),
    [
        (GLUED, spelt(" the ca")),  # its last letters and the template's first become one token
        (TAMES, spelt(" the cat")),
        (BEGINS_ANEW, spelt(" the cat")),
        (TEMPLATE, [TOKENIZER.convert_tokens_to_ids(IMAGE), *spelt(" cat")]),
        (TEMPLATE, [TOKENIZER.convert_tokens_to_ids(BOS)]),  # says nothing
    ],
    ids=["glued", "tamed", "begun anew", "image token", "empty"],
)
def test_where_its_end_cannot_be_told_the_template_counts(template: str, answer: list[int]) -> None:
    processor = small_llava.processor(TOKENIZER, template)
    before = said(processor, answer)
    later = read(processor, [*before.messages, dialogue.question(processor, SECOND, 0)])
    found = before.followed_by(processor, later)
    assert found.ids == later.ids and found.warnings == (REWRITTEN,)


def test_inputs_of_tokens_that_are_not_known_are_left_as_they_are() -> None:
    processor = small_llava.processor(TOKENIZER)
    before = said(processor, spelt(" the cat"))
    later = read(processor, [*before.messages, dialogue.question(processor, SECOND, 0)])
    more = replace(later, inputs={**later.inputs, "depths": torch.zeros(1, len(later.ids), 3)})
    assert before.followed_by(processor, more).warnings == (REWRITTEN,)


def test_images_stand_before_the_words_or_where_these_say() -> None:
    processor = small_llava.processor(TOKENIZER)
    before, within = (dialogue.question(processor, text, 2) for text in ("what", f"{IMAGE} or {IMAGE}"))
    assert before["content"] == [{"type": "image"}, {"type": "image"}, {"type": "text", "text": "what"}]
    assert within["content"] == [{"type": "text", "text": f"{IMAGE} or {IMAGE}"}]
    with pytest.raises(InputError, match="the question must be a text"):
        dialogue.question(processor, " ", 1)
