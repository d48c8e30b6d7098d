"""Conversations: each answer's explanation is that of the whole dialogue, and a turn runs only what is new."""

from __future__ import annotations

import pickle
import sys
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import small_llava
import torch
from alike import assert_same
from PIL import Image
from zoo_dialogues import counted

from dexar_fast import Explainer, Explanation, ImageError, InputError
from dexar_fast.attribution.calls.gradients import CallGradients
from dexar_fast.cli.explain import SAMPLE_IMAGE
from dexar_fast.conversation import MEANWHILE, NO_USE, OLDER, UNBUILT, Chat
from dexar_fast.kvcache import reuse
from dexar_fast.kvcache.pool import KVPool
from dexar_fast.kvcache.reuse import takes_images_behind
from dexar_fast.prompt.dialogue import REWRITTEN

PICTURE = small_llava.noise()
OTHER = Image.fromarray(np.asarray(PICTURE)[::-1])
QUESTIONS = ("what is on the mat", "it is red", "Describe the dog")
ANSWERS = ("the cat is on the mat", "a red dog", "it is a dog")
CONTEXT = 4096


@pytest.fixture(scope="module")
def alone() -> Explainer:
    processor = small_llava.processor()
    return Explainer(small_llava.model(processor.tokenizer, CONTEXT), processor)


@pytest.fixture
def fresh(alone: Explainer) -> Explainer:
    return Explainer(alone.model, alone.processor)


def user(question: str, images: int = 0) -> dict[str, Any]:
    return {"role": "user", "content": [{"type": "image"}] * images + [{"type": "text", "text": question}]}


def assistant(answer: str) -> dict[str, Any]:
    return {"role": "assistant", "content": answer}


def dialogue(questions: Sequence[str], answers: Sequence[str], images: Sequence[int] = (1,)) -> list[dict[str, Any]]:
    """The messages up to the last question; `images` come with the first ones."""
    shown = [*images, *[0] * len(questions)]
    messages = [user(question, count) for question, count in zip(questions, shown, strict=False)]
    for place, answer in enumerate(answers[: len(questions) - 1]):
        messages.insert(2 * place + 1, assistant(answer))
    return messages


def from_scratch(explainer: Explainer, chat: Chat, found: Explanation) -> Explanation:
    """The same answer behind the same tokens, by an explainer that knows nothing of the chat."""
    said = chat._turns[-1].said
    length = found.metadata["prompt_tokens"]
    shown = explainer.processor(images=said.images, text="<image>" * len(said.images), return_tensors="pt")
    tokens = {name: ids[:, :length] for name, ids in said.tokens.items()}
    return explainer.explain_inputs({**shown, **tokens}, target_ids=found.token_ids)


def layer(explainer: Explainer) -> Any:
    return explainer.model.model.language_model.layers[0]


# The whole dialogue


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_given_answers_are_explained_as_the_whole_dialogue_is(dtype: torch.dtype) -> None:
    processor = small_llava.processor()
    model = small_llava.model(processor.tokenizer, CONTEXT).to(dtype)
    chat, other = Explainer(model, processor).chat(PICTURE), Explainer(model, processor)
    for turn, (question, answer) in enumerate(zip(QUESTIONS, ANSWERS, strict=True)):
        found = chat.ask(question, response=answer)
        expected = other.explain(PICTURE, dialogue(QUESTIONS[: turn + 1], ANSWERS), answer)
        assert_same(found, expected, 1e-5 if dtype == torch.float32 else 1e-12)
        assert found.metadata["prompt"] == expected.metadata["prompt"]
        assert found.metadata["question"] == question
    assert chat.turns == list(zip(QUESTIONS, ANSWERS, strict=True))


def test_written_answers_keep_the_ids_with_which_they_were_written(fresh: Explainer) -> None:
    """The small model writes bytes that its tokenizer would write as words, or not at all."""
    chat = fresh.chat(PICTURE)
    read: list[int] = []
    for question in QUESTIONS:
        found = chat.ask(question, max_new_tokens=7, min_new_tokens=7)
        ids = chat._turns[-1].said.tokens["input_ids"][0].tolist()
        assert ids[: len(read)] == read and ids[-7:] == found.token_ids.tolist()
        assert not found.diagnostics["warnings"]
        assert_same(found, from_scratch(fresh, chat, found))
        read = ids


def test_behind_beams_nothing_of_another_beam_is_found() -> None:
    """Those that ran last need not be the answer's: one that has ended has left its row of the cache."""
    explainer = Explainer.from_pretrained(against="runner-up")
    found = []
    for forgets in (False, True):
        chat = explainer.chat(SAMPLE_IMAGE)
        chat.ask("What is this?", num_beams=3, max_new_tokens=8, min_new_tokens=4, eos_token_id=15, length_penalty=3.0)
        assert chat._pool is not None
        if forgets:
            chat._pool.clear()
        found.append(chat.ask("And where?", response="on the left").token_maps)
    torch.testing.assert_close(*found, rtol=0, atol=1e-5 * float(found[1].max()))


def test_earlier_turns_are_among_the_text_keys(fresh: Explainer) -> None:
    explainer = Explainer(fresh.model, fresh.processor, text_relevance=True)
    chat = explainer.chat(PICTURE)
    chat.ask(QUESTIONS[0], response=ANSWERS[0])
    found = chat.ask(QUESTIONS[1], response=ANSWERS[1])
    assert found.text_relevance is not None
    words = "".join(found.text_relevance.tokens)
    assert QUESTIONS[0] in words and ANSWERS[0] in words


def test_content_holds_what_the_user_said_in_every_turn(fresh: Explainer) -> None:
    explainer = Explainer(fresh.model, fresh.processor, text_set="content")
    chat = explainer.chat(PICTURE)
    for question in QUESTIONS:
        found = chat.ask(question, max_new_tokens=5, min_new_tokens=5)
    said = chat._turns[-1].said
    assert said.content is not None
    words = fresh.processor.tokenizer.decode(said.tokens["input_ids"][0, said.content])
    assert words == "".join(f" {question}" for question in QUESTIONS).replace(" what", "what", 1) and len(found) == 5


def test_a_stream_is_the_same_turn(fresh: Explainer) -> None:
    chat, other = fresh.chat(PICTURE), fresh.chat(PICTURE)
    for question in QUESTIONS:
        with chat.stream(question, chunk_size=3, max_new_tokens=7) as stream:
            pieces = list(stream)
        assert [id for piece in pieces for id in piece.token_ids.tolist()] == stream.explanation().token_ids.tolist()
        assert_same(stream.explanation(), other.ask(question, max_new_tokens=7))
    assert chat.turns == other.turns and len(chat.turns) == len(QUESTIONS)


# What runs


def test_a_turn_runs_its_new_tokens_over_fifty_turns(fresh: Explainer) -> None:
    chat = fresh.chat(PICTURE)
    warm = dialogue(["what"] * 51, ["it is red"] * 50)
    expected = fresh.explain(PICTURE, warm, "it is red")  # the agreement of attentions is known from here on
    most, lengths = 0, []
    for turn in range(51):
        with counted(layer(fresh)) as positions, counted(fresh.model.model.vision_tower) as looks:
            found = chat.ask("what", response="it is red")
        lengths.append(found.metadata["prompt_tokens"])
        new = lengths[-1] - (lengths[-2] if turn else 0)
        most = max(most, sum(positions) - new if turn else 0)
        assert len(looks) == (turn == 0)
    assert most <= 1  # beside the new tokens: the last one of the answer, which had not run
    assert_same(found, expected)
    stats = chat._pool.books.stats()
    assert stats["held"] == stats["moves"] == 0 and stats["sequences"] == 0
    assert chat._pool.slots <= 3 * (lengths[-1] + len(found)) + 16


def test_a_long_question_moves_to_a_larger_pool_what_was_known(fresh: Explainer) -> None:
    chat = fresh.chat(PICTURE)
    for _ in range(2):
        chat.ask("what", response="it is red")  # so the dialogue lies anywhere in its pool
    small, known = chat._pool, len(chat._turns[-1].said)
    long = "the cat is on the mat " * 40
    expected = fresh.explain(PICTURE, dialogue(["what", "what", long], ["it is red"] * 2), ANSWERS[0])
    with counted(layer(fresh)) as positions:
        found = chat.ask(long, response=ANSWERS[0])
    assert_same(found, expected)
    assert chat._pool is not small and chat._pool.slots > small.slots
    assert sum(positions) <= found.metadata["prompt_tokens"] - known + 1 + len(found)
    chat.back(3)
    assert_same(chat.ask(3 * long, response=ANSWERS[0]), fresh.explain(PICTURE, 3 * long, ANSWERS[0]))


def test_a_picture_in_a_later_turn(fresh: Explainer) -> None:
    chat = fresh.chat(PICTURE)
    chat.ask(QUESTIONS[0], response=ANSWERS[0])
    expected = fresh.explain([PICTURE, OTHER], dialogue(QUESTIONS[:2], ANSWERS, (1, 1)), ANSWERS[1])
    with counted(layer(fresh)) as positions:
        found = chat.ask(QUESTIONS[1], OTHER, ANSWERS[1])
    assert_same(found, expected)
    assert [*map(repr, found.grids)] == [*map(repr, expected.grids)]
    assert sum(positions) < 16 + 40 < found.metadata["prompt_tokens"] or not takes_images_behind(fresh.model)
    again = chat.ask(QUESTIONS[2], response=ANSWERS[2])
    assert_same(again, fresh.explain([PICTURE, OTHER], dialogue(QUESTIONS, ANSWERS, (1, 1)), ANSWERS[2]))


def test_an_older_transformers_runs_all_for_a_later_picture_and_says_so(
    fresh: Explainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reuse, "RIGHT_BEHIND", (99, 0))
    chat = fresh.chat(PICTURE)
    first = chat.ask(QUESTIONS[0], response=ANSWERS[0])
    found = chat.ask(QUESTIONS[1], OTHER, ANSWERS[1])
    plain = chat.ask(QUESTIONS[2], response=ANSWERS[2])
    assert [OLDER in each.diagnostics["warnings"] for each in (first, found, plain)] == [False, True, False]
    assert_same(found, fresh.explain([PICTURE, OTHER], dialogue(QUESTIONS[:2], ANSWERS, (1, 1)), ANSWERS[1]))


def test_the_first_picture_may_come_with_the_question(fresh: Explainer) -> None:
    found = fresh.chat().ask(QUESTIONS[0], PICTURE, ANSWERS[0])
    assert_same(found, fresh.explain(PICTURE, QUESTIONS[0], ANSWERS[0]))
    both = fresh.chat(PICTURE).ask("<image> or <image>", [OTHER], ANSWERS[0])
    asked = [{"role": "user", "content": "<image> or <image>"}]
    assert_same(both, fresh.explain([PICTURE, OTHER], asked, ANSWERS[0]))


def test_the_pool_of_the_explainer_is_used(fresh: Explainer) -> None:
    pool = KVPool(1024, 4)
    chat = Explainer(fresh.model, fresh.processor, pool=pool).chat(PICTURE)
    for question, answer in zip(QUESTIONS, ANSWERS, strict=True):
        found = chat.ask(question, response=answer)
    assert chat._pool is None and pool.books.stats()["reused_slots"] > 0
    assert_same(found, fresh.explain(PICTURE, dialogue(QUESTIONS, ANSWERS), ANSWERS[2]))


# Branches


def test_forks_go_their_own_ways(fresh: Explainer) -> None:
    chat = fresh.chat(PICTURE)
    chat.ask(QUESTIONS[0], response=ANSWERS[0])
    fork = chat.fork()
    ours = chat.ask(QUESTIONS[1], response=ANSWERS[1])
    theirs = fork.ask(QUESTIONS[2], OTHER, ANSWERS[2])
    assert_same(ours, fresh.explain(PICTURE, dialogue(QUESTIONS[:2], ANSWERS), ANSWERS[1]))
    asked = [QUESTIONS[0], QUESTIONS[2]]
    assert_same(theirs, fresh.explain([PICTURE, OTHER], dialogue(asked, ANSWERS, (1, 1)), ANSWERS[2]))
    assert chat.turns == list(zip(QUESTIONS[:2], ANSWERS, strict=False))
    assert fork.turns == [(QUESTIONS[0], ANSWERS[0]), (QUESTIONS[2], ANSWERS[2])]


def test_going_back_runs_nothing_again(fresh: Explainer) -> None:
    chat = fresh.chat(PICTURE)
    for question, answer in zip(QUESTIONS, ANSWERS, strict=True):
        chat.ask(question, response=answer)
    chat.back(2)
    expected = fresh.explain(PICTURE, dialogue(["what is on the mat", "a dog"], ANSWERS), ANSWERS[1])
    with counted(layer(fresh)) as positions:
        assert_same(chat.ask("a dog", response=ANSWERS[1]), expected)
    assert sum(positions) < 40
    chat.back(2)
    assert chat.turns == []
    assert_same(chat.ask("a dog", response=ANSWERS[1]), fresh.explain(PICTURE, "a dog", ANSWERS[1]))


def test_a_fork_asks_while_answers_of_others_are_open(fresh: Explainer) -> None:
    """A stream that is not read on holds its part of a pool, perhaps for good."""
    chat = fresh.chat(PICTURE)
    chat.ask(QUESTIONS[0], max_new_tokens=60, min_new_tokens=60)
    forks = [chat.fork() for _ in range(4)]
    streams = []
    for fork in forks:
        streams.append(fork.stream(QUESTIONS[1], chunk_size=2, max_new_tokens=12, min_new_tokens=12))
        next(streams[-1])
    expected = chat.ask(QUESTIONS[1], max_new_tokens=12, min_new_tokens=12)
    assert_same(expected, from_scratch(fresh, chat, expected))
    for stream in streams:
        list(stream)
        assert_same(stream.explanation(), expected)


def test_a_chat_goes_on_in_another_process(fresh: Explainer) -> None:
    chat = fresh.chat(PICTURE)
    chat.ask(QUESTIONS[0], max_new_tokens=7, min_new_tokens=7)
    other = pickle.loads(pickle.dumps(chat))
    assert other.turns == chat.turns and other.model is not chat.model
    assert_same(other.ask(QUESTIONS[1], OTHER, ANSWERS[1]), chat.ask(QUESTIONS[1], OTHER, ANSWERS[1]))


def test_a_chat_goes_on_with_its_model_in_another_dtype() -> None:
    processor = small_llava.processor()
    talking = Explainer(small_llava.model(processor.tokenizer, CONTEXT), processor)
    chat = talking.chat(PICTURE)
    chat.ask(QUESTIONS[0], max_new_tokens=7, min_new_tokens=7)
    talking.model.double()
    found = chat.ask(QUESTIONS[1], response=ANSWERS[1])
    assert_same(found, from_scratch(talking, chat, found), 1e-12)


def test_two_chats_share_a_model_in_two_threads(fresh: Explainer) -> None:
    found: dict[str, list[Explanation]] = {"first": [], "second": []}

    def talk(name: str, picture: Image.Image) -> None:
        chat = fresh.chat(picture)
        for question, answer in zip(QUESTIONS, ANSWERS, strict=True):
            found[name].append(chat.ask(question, response=answer))

    threads = [threading.Thread(target=talk, args=each) for each in (("first", PICTURE), ("second", OTHER))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for name, picture in (("first", PICTURE), ("second", OTHER)):
        for turn, one in enumerate(found[name]):
            asked = dialogue(QUESTIONS[: turn + 1], ANSWERS)
            assert_same(one, fresh.explain(picture, asked, ANSWERS[turn]))
        assert len(found[name]) == len(QUESTIONS)


# What goes wrong


def interrupted(*_: Any, **__: Any) -> Any:
    raise KeyboardInterrupt


def test_a_turn_that_is_interrupted_leaves_the_chat_usable(fresh: Explainer) -> None:
    chat = fresh.chat(PICTURE)
    chat.ask(QUESTIONS[0], response=ANSWERS[0])
    for owner, name in ((CallGradients, "of"), (fresh.model, "generate")):
        with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(owner, name, interrupted)
            chat.ask(QUESTIONS[2], max_new_tokens=4)
    with chat.stream(QUESTIONS[2], chunk_size=1, max_new_tokens=20, min_new_tokens=20) as stream:
        next(stream)
    assert len(chat.turns) == 1
    found = chat.ask(QUESTIONS[1], response=ANSWERS[1])
    assert_same(found, fresh.explain(PICTURE, dialogue(QUESTIONS[:2], ANSWERS), ANSWERS[1]))
    assert chat._pool.books.stats()["held"] == 0


def test_a_turn_that_was_asked_meanwhile_is_refused(fresh: Explainer) -> None:
    chat = fresh.chat(PICTURE)
    stream = chat.stream(QUESTIONS[0], chunk_size=2, max_new_tokens=6, min_new_tokens=6)
    next(stream)
    chat.ask(QUESTIONS[1], response=ANSWERS[1])
    with pytest.raises(InputError, match=MEANWHILE[:30]):
        list(stream)
    assert chat.turns == [(QUESTIONS[1], ANSWERS[1])]


@pytest.mark.parametrize("question", ["", "  \n", None, 7, [{"role": "user", "content": "what"}]])
def test_a_question_is_a_text(fresh: Explainer, question: Any) -> None:
    chat = fresh.chat(PICTURE)
    for _ in range(2):
        with pytest.raises(InputError, match="the question must be a text"):
            chat.ask(question)
        chat.ask(QUESTIONS[0], response=ANSWERS[0])


def test_misuse_is_refused_and_leaves_the_chat_as_it_was(fresh: Explainer) -> None:
    with pytest.raises(ImageError, match="no image"):
        fresh.chat().ask(QUESTIONS[0])
    with pytest.raises(ImageError, match="cannot read a int"):
        fresh.chat(7)
    chat = fresh.chat(PICTURE)
    chat.ask(QUESTIONS[0], response=ANSWERS[0])
    with pytest.raises(InputError, match=r"places for 3 image.* and 2 came"):
        chat.ask("<image> or <image>", OTHER)
    with pytest.raises(InputError, match="more than the model's context"):
        chat.ask("what " * CONTEXT)
    with pytest.raises(InputError, match="the answer is empty"):
        chat.ask(QUESTIONS[1], response=" ")
    for turns in (0, -1, "all"):
        with pytest.raises(InputError, match="no positive number"):
            chat.back(turns)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"the chat has 1 turn.s.: 2 cannot be taken back"):
        chat.back(2)
    assert chat.turns == [(QUESTIONS[0], ANSWERS[0])]


def test_a_template_that_rewrites_the_past_is_said_and_followed(fresh: Explainer) -> None:
    template = small_llava.TEMPLATE.replace(
        "{{ part['text'] + ' ' }}", "{{ part['text'] | replace('red', 'a') + ' ' }}"
    )
    explainer = Explainer(fresh.model, small_llava.processor(template=template))
    chat = explainer.chat(PICTURE)
    chat.ask(QUESTIONS[0], response="it is red")
    found = chat.ask(QUESTIONS[2], response=ANSWERS[2])
    assert REWRITTEN in found.diagnostics["warnings"]
    asked = dialogue([QUESTIONS[0], QUESTIONS[2]], ["it is a"])
    assert_same(found, fresh.explain(PICTURE, asked, ANSWERS[2]))


def test_a_processor_without_template_takes_one_turn(fresh: Explainer) -> None:
    chat = Explainer(fresh.model, small_llava.processor(template=None)).chat(PICTURE)
    chat.ask(QUESTIONS[0], response=ANSWERS[0])
    with pytest.raises(InputError, match="no chat template to write 3 messages with"):
        chat.ask(QUESTIONS[1])
    assert len(chat.turns) == 1


# Without a pool


def test_without_the_extension_each_turn_runs_the_whole_dialogue(
    fresh: Explainer, monkeypatch: pytest.MonkeyPatch, without_extension: None
) -> None:
    for module in ("dexar_fast.kvcache.pool", "dexar_fast.kvcache.naming"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    assert_whole(fresh, UNBUILT)


def test_a_model_that_keeps_more_than_keys_runs_the_whole_dialogue() -> None:
    processor = small_llava.processor()
    hybrid = {"model_type": "lfm2", "layer_types": ["conv", "full_attention"], "conv_L_cache": 3}
    model = small_llava.model(processor.tokenizer, CONTEXT, **hybrid)
    assert_whole(Explainer(model, processor), NO_USE.format("LlavaForConditionalGeneration"))


def assert_whole(explainer: Explainer, warning: str) -> None:
    chat = explainer.chat(PICTURE)
    first = chat.ask(QUESTIONS[0], response=ANSWERS[0])
    found = chat.ask(QUESTIONS[1], response=ANSWERS[1])
    assert warning in found.diagnostics["warnings"] and not first.diagnostics["warnings"]
    expected = Explainer(explainer.model, explainer.processor)
    assert_same(found, expected.explain(PICTURE, dialogue(QUESTIONS[:2], ANSWERS), ANSWERS[1]))
