"""Chat messages as prompts, the templates that write them, and thoughts that a prompt opens."""

from __future__ import annotations

import base64
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import small_llava
import torch
from PIL import Image
from small_llava import BOS, IMAGE, TEMPLATE

from dexar_fast import Explainer, ImageError, InputError
from dexar_fast.prompt.prompting import answer_ids, own_positions, process, render

PICTURE, OTHER = small_llava.noise(), Image.new("RGB", (20, 30), "red")
TOKENIZER = small_llava.byte_level()
PROCESSOR = small_llava.processor(TOKENIZER)
QUESTION = "Describe the image."
# A template for texts alone, as trainers of text models write it; and one that joins the parts of a message.
TEXT_ALONE = (
    "{% for message in messages %}{{ message['role'] | upper + ': ' + message['content'] | trim + ' ' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
PRINTS = TEXT_ALONE.replace("message['content'] | trim", "message['content'] | string")
JSON = TEXT_ALONE.replace("message['content'] | trim", "(message['content'] | tojson)")
DROPS = TEMPLATE.replace("'<image>\n'", "''")
FIRST_ALONE = TEMPLATE.replace("{{ '<image>\n' }}", "{% if loop.first %}{{ '<image>\n' }}{% endif %}")
OTHERS = TEMPLATE.replace("in messages %}", "in messages if message['role'] != 'system' %}")
SYSTEM_AS_TEXT = "{% if messages[0]['role'] == 'system' %}{{ messages[0]['content'] + ' ' }}{% endif %}" + OTHERS
OPENS = TEMPLATE.replace("'ASSISTANT:'", "'ASSISTANT: <think>\n'")
REFUSES = "{{ raise_exception('roles must alternate') }}"
WRITTEN = f"USER: {IMAGE}\n{QUESTION} ASSISTANT:"


def user(*parts: Any) -> dict[str, Any]:
    return {"role": "user", "content": [part if isinstance(part, dict) else words(part) for part in parts]}


def words(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}


def image(picture: Any = None, key: str = "image") -> dict[str, Any]:
    return {"type": "image"} if picture is None else {"type": "image", key: picture}


def with_template(template: Any, of_tokenizer: Any = None) -> Any:
    processor = small_llava.processor(small_llava.byte_level(), template)
    processor.tokenizer.chat_template = of_tokenizer
    return processor


def as_data(picture: Image.Image) -> str:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


@pytest.fixture(scope="module")
def explainer() -> Explainer:
    return Explainer(small_llava.model(TOKENIZER), PROCESSOR)


# Where the template stands


def test_a_template_of_the_tokenizer_alone_is_used() -> None:
    prompt = render(with_template(None, TEMPLATE), QUESTION, [PICTURE])
    assert (prompt.text, prompt.warnings) == (WRITTEN, ())


def test_the_processors_template_goes_first() -> None:
    assert render(with_template(TEMPLATE, REFUSES), QUESTION, [PICTURE]).text == WRITTEN


def test_a_folder_whose_tokenizer_config_alone_holds_the_template(tmp_path: Path) -> None:
    small_llava.model(TOKENIZER).save_pretrained(tmp_path)
    with_template(None).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config | {"chat_template": TEMPLATE}))
    found = Explainer.from_pretrained(tmp_path).explain(PICTURE, QUESTION, "the cat")
    assert found.metadata["prompt"] == WRITTEN
    assert not [warning for warning in found.diagnostics["warnings"] if "template" in warning]


@pytest.mark.parametrize("where", ["processor", "tokenizer"])
def test_of_several_templates_the_default_is_used(where: str) -> None:
    several = {"tool_use": REFUSES, "default": TEMPLATE}
    processor = with_template(several) if where == "processor" else with_template(None, several)
    assert render(processor, QUESTION, [PICTURE]).text == WRITTEN


def test_several_templates_without_a_default_are_refused_by_their_names() -> None:
    with pytest.raises(InputError, match=r"chat templates are called 'tool_use', 'rag', and none 'default': set proc"):
        render(with_template({"tool_use": TEMPLATE, "rag": TEMPLATE}), QUESTION, [PICTURE])


def test_a_missing_template_is_warned_of(explainer: Explainer) -> None:
    without = Explainer(explainer.model, with_template(None))
    with pytest.warns(UserWarning, match="LlavaProcessor has no chat template"):
        found = without.explain(PICTURE, QUESTION, "the cat")
    assert any("has no chat template: the prompt goes" in warning for warning in found.diagnostics["warnings"])
    written = without.explain(PICTURE, WRITTEN, " the cat")  # no template is asked for
    assert not [warning for warning in written.diagnostics["warnings"] if "template" in warning]


# What templates take


@pytest.mark.parametrize("template", [TEXT_ALONE, PRINTS, JSON])
def test_a_template_for_text_alone_gets_the_image_token_in_it(template: str) -> None:
    prompt = render(with_template(template), QUESTION, [PICTURE, OTHER])
    said = f"{IMAGE}\n{IMAGE}\n{QUESTION}"
    assert prompt.text == f"USER: {json.dumps(said) if template is JSON else said} ASSISTANT:"
    (warning,) = prompt.warnings
    assert "takes text alone" in warning


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (DROPS, "the chat template leaves out the image: write the whole prompt, with the image token '<image>'"),
        (FIRST_ALONE, "the chat template writes 1 image tokens '<image>' for 2 image"),
        (REFUSES, "the chat template fails .roles must alternate"),
        ("{{ 'hello' }}", "the chat template leaves out words of the messages"),
        ("{{ messages | nothing }}", "the chat template fails"),
    ],
)
def test_a_template_that_does_not_write_the_question_is_refused(template: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        render(with_template(template), QUESTION, [PICTURE, OTHER])


def test_a_system_message_that_the_template_takes_as_text() -> None:
    messages = [{"role": "system", "content": "it is red"}, user(image(), QUESTION)]
    prompt = render(with_template(SYSTEM_AS_TEXT), messages, [PICTURE])
    assert (prompt.text, prompt.warnings) == (f"it is red {WRITTEN}", ())


def test_an_answer_stands_where_the_template_puts_it_in_any_form() -> None:
    for template in (TEMPLATE, TEXT_ALONE):
        prompt = render(with_template(template), QUESTION, [PICTURE])
        assert TOKENIZER.decode(answer_ids(PROCESSOR, prompt, "the cat")) == " the cat"


# Messages


def test_messages_are_the_prompt_that_they_say(explainer: Explainer) -> None:
    uri = f"data:image/png;base64,{as_data(PICTURE)}"
    alike = [
        ([PICTURE], QUESTION),
        ([PICTURE], [user(QUESTION)]),
        ([PICTURE], ({"role": "user", "content": QUESTION},)),
        ([PICTURE], [user(image(), QUESTION)]),
        (None, [user(image(PICTURE), QUESTION)]),
        (None, [user({"type": "image", "base64": as_data(PICTURE)}, QUESTION)]),
        (None, [user({"type": "image_url", "image_url": {"url": uri}}, QUESTION)]),
    ]
    found = [explainer.explain(picture, prompt, "the cat") for picture, prompt in alike]
    for each in found[1:]:
        assert each.metadata["prompt"] == WRITTEN
        torch.testing.assert_close(torch.as_tensor(each.token_maps), torch.as_tensor(found[0].token_maps))
        assert [one.tobytes() for one in each.images] == [PICTURE.tobytes()]


@pytest.mark.parametrize("name", ["image", "url", "path", "image_url"])
def test_a_path_in_a_message(explainer: Explainer, tmp_path: Path, name: str) -> None:
    PICTURE.save(tmp_path / "a.png")
    for path in (str(tmp_path / "a.png"), f"file://{tmp_path}/a.png"):
        found = explainer.explain(None, [user(image(path, name), QUESTION)], "the cat")
        assert found.images[0].tobytes() == PICTURE.tobytes()


def test_pictures_inside_and_beside_keep_their_order(explainer: Explainer) -> None:
    messages = [
        user(image(), "the cat", image(OTHER)),
        {"role": "assistant", "content": "it is red"},
        user(f"{IMAGE} is it a dog"),
    ]
    third = Image.new("RGB", (30, 20), "blue")
    found = explainer.explain([PICTURE, third], messages, "the cat")
    assert [one.tobytes() for one in found.images] == [one.tobytes() for one in (PICTURE, OTHER, third)]
    assert found.metadata["prompt"] == (
        f"USER: {IMAGE}\n{IMAGE}\nthe cat ASSISTANT: it is red USER: {IMAGE} is it a dog ASSISTANT:"
    )
    assert len(found.grids) == 3


def test_a_generated_answer_and_a_stream_to_messages(explainer: Explainer) -> None:
    messages = [user(image(PICTURE), QUESTION)]
    plain = explainer.explain(PICTURE, QUESTION, max_new_tokens=3)
    assert explainer.explain(None, messages, max_new_tokens=3).tokens == plain.tokens
    with explainer.stream(None, messages, max_new_tokens=3) as stream:
        list(stream)
        assert stream.explanation().tokens == plain.tokens


def test_many_conversations_and_one(explainer: Explainer) -> None:
    one, other = [user(image(PICTURE), QUESTION)], [user(image(OTHER), "is it red")]
    (found,) = explainer.explain_many(None, one, ["the cat"])
    both = explainer.explain_many(None, [one, other], ["the cat", "a dog"])
    assert [each.images[0].size for each in both] == [PICTURE.size, OTHER.size]
    assert found.metadata["prompt"] == both[0].metadata["prompt"] == WRITTEN
    beside = explainer.explain_many(PICTURE, [QUESTION, [user("is it red")]], ["the cat", "a dog"])
    assert beside[1].metadata["prompt"] == f"USER: {IMAGE}\nis it red ASSISTANT:"
    for each, alone in zip(beside, [found, explainer.explain(PICTURE, "is it red", "a dog")], strict=True):
        torch.testing.assert_close(torch.as_tensor(each.token_maps), torch.as_tensor(alone.token_maps))


@pytest.mark.parametrize("response", [None, " is red", "is red"])
def test_an_answer_goes_on_where_the_messages_begin_it(explainer: Explainer, response: str | None) -> None:
    messages = [user(image(PICTURE), QUESTION), {"role": "assistant", "content": "the cat"}]
    begun = f"{WRITTEN} the cat"
    found = explainer.explain(None, messages, response, max_new_tokens=None if response else 3)
    written = explainer.explain(PICTURE, begun, response, max_new_tokens=None if response else 3)
    assert found.metadata["prompt"] == begun
    assert found.tokens == written.tokens and found.token_maps.shape == written.token_maps.shape
    assert response is None or "".join(found.tokens) == response


def test_what_the_user_says_in_all_messages_is_found() -> None:
    messages = [user(image(), "it is red"), {"role": "assistant", "content": "is it"}, user("a cat", "on the mat")]
    prompt = render(PROCESSOR, messages, [PICTURE])
    ids = process(PROCESSOR, prompt)["input_ids"]
    found = TOKENIZER.convert_ids_to_tokens(ids[0, own_positions(PROCESSOR, prompt, ids)].tolist())
    assert [token.lstrip("Ġ") for token in found] == ["it", "is", "red", "a", "cat", "on", "the", "mat"]


def test_what_the_user_says_is_found_behind_an_answer_that_the_template_cuts() -> None:
    cuts = TEMPLATE.replace("part['text'] + ' '", "part['text'].split('</think>')[-1] + ' '")
    messages = [user(image(), "it is red"), {"role": "assistant", "content": "red it</think> a red cat"}, user("red")]
    prompt = render(with_template(cuts), messages, [PICTURE])
    assert prompt.own is not None and [prompt.text[a:b] for a, b in prompt.own] == ["it is red", "red"]
    assert prompt.own[1][0] == prompt.text.rindex("red")


def test_a_message_that_calls_a_tool_says_nothing_beside_it() -> None:
    calls = "{% for call in message.tool_calls %}{{ call['name'] + ' ' }}{% endfor %}"
    for empty in ({}, {"content": None}):
        called = {"role": "assistant", "tool_calls": [{"name": "zoom"}], **empty}
        messages = [user(image(), QUESTION), called, {"role": "tool", "content": "a cat"}]
        prompt = render(
            with_template(TEMPLATE.replace("{% endfor %}{% if", f"{calls}{{% endfor %}}{{% if")), messages, [PICTURE]
        )
        assert prompt.text == f"{WRITTEN} zoom TOOL: a cat ASSISTANT:"


@pytest.mark.parametrize(
    ("asks", "answers"), [("User", "Assistant"), ("<|User|>", "<|Assistant|>"), ("human", "model")]
)
def test_roles_of_other_names(asks: str, answers: str) -> None:
    begun = [{"role": asks, "content": [image(PICTURE), words(QUESTION)]}, {"role": answers, "content": "the cat"}]
    prompt = render(PROCESSOR, begun, [])
    assert prompt.text == f"{asks.upper()}: {IMAGE}\n{QUESTION} {answers.upper()}: the cat"
    assert prompt.own is not None and [prompt.text[a:b] for a, b in prompt.own] == [QUESTION]
    assert render(PROCESSOR, [{"role": asks, "content": QUESTION}], [PICTURE]).text.startswith(
        f"{asks.upper()}: {IMAGE}"
    )


@dataclass
class Said:
    role: str
    content: Any
    tool_calls: Any = None


@dataclass
class Part:
    type: str
    text: str | None = None
    image: Any = None


class Model:
    """As pydantic's."""

    def __init__(self, **said: Any) -> None:
        self.said = said

    def model_dump(self) -> dict[str, Any]:
        return self.said


def test_messages_that_are_objects() -> None:
    parts = [Part("image", image=PICTURE), Part("text", text=QUESTION)]
    for message in (Said("user", parts), Model(role="user", content=parts, name=None)):
        assert render(PROCESSOR, [message], []).text == WRITTEN


@pytest.mark.parametrize(
    ("messages", "images", "message"),
    [
        ([user(image(PICTURE), image(), QUESTION)], [], "places for 1 image.*and 0 came beside them"),
        ([user(image(PICTURE), QUESTION)], [PICTURE], "places for 0 image.*and 1 came beside them"),
        ([user(f"{IMAGE} is it")], [PICTURE, OTHER], "places for 1 image.*and 2 came beside them"),
        ([{"role": "system", "content": QUESTION}], [PICTURE], "prompt is empty: ask the model"),
        ([user(image(PICTURE))], [], "prompt is empty: ask the model"),
        ([{"content": QUESTION}], [PICTURE], r"message 0 must be \{'role'"),
        ([user(QUESTION), "it"], [PICTURE], r"message 1 must be \{'role'"),
        ([{"role": "user", "content": None}], [PICTURE], "content of message 0 must be a text, or a list of parts"),
        ([user({"type": "video", "video": "a.mp4"}, QUESTION)], [], "message 0 holds video: messages hold text and"),
        ([user({"type": "text"}, QUESTION)], [PICTURE], "message 0 holds the part"),
        ([user(image(PICTURE) | {"max_pixels": 50176}, QUESTION)], [], r"picture of another size .max_pixels., which"),
        ([{"role": "user", "content": [QUESTION]}], [PICTURE], "message 0 holds the part 'Describe"),
        ([user("caf\udce9")], [PICTURE], "prompt is not valid Unicode"),
    ],
)
def test_messages_that_cannot_be_asked_are_refused(messages: Any, images: list[Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        render(PROCESSOR, messages, images)


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        (QUESTION, "no image: pass a path"),
        ([user(QUESTION)], "no image: pass a path"),
        ([user(image("nothing.png"), QUESTION)], "nothing.png does not exist"),
        ([user(image("https://localhost/a.png", "url"), QUESTION)], "is on the web: download it first"),
        ([user(image(3), QUESTION)], "cannot read a int as an image"),
        ([user(image({"bytes": b"x", "path": None}), QUESTION)], "cannot read a dict as an image"),
        ([user(image("data:image/png;base64,AAAA"), QUESTION)], "the image in 'data:image/png;base64' cannot be read"),
        ([user(image("data:image/png,hello"), QUESTION)], "the image in 'data:image/png' cannot be read: it is not in"),
    ],
)
def test_messages_without_a_picture_that_can_be_read(explainer: Explainer, prompt: Any, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        explainer.explain(None, prompt, "the cat")


def test_a_conversation_needs_a_template() -> None:
    messages = [user(image(), QUESTION), {"role": "assistant", "content": "a cat"}, user("is it red")]
    with pytest.raises(InputError, match="no chat template to write 3 messages with: write the whole prompt"):
        render(with_template(None), messages, [PICTURE])
    assert render(with_template(None), [user(QUESTION, image())], [PICTURE]).text == f"{QUESTION}{IMAGE}"


# Image tokens of other models


def test_an_image_token_of_another_model_is_warned_of(explainer: Explainer) -> None:
    with pytest.warns(UserWarning, match="image_pad"):
        found = explainer.explain(PICTURE, "<|image_pad|> is it red", "the cat")
    assert any("'<|image_pad|>', which stands for an image in other models" in w for w in found.diagnostics["warnings"])
    assert render(PROCESSOR, f"{BOS}{IMAGE} is it red", [PICTURE]).warnings == ()


# Thoughts


@pytest.mark.parametrize(
    ("response", "explained"),
    [
        ("<think>\nit is red</think> a cat", "it is red</think> a cat"),
        (" <think>it is red</think> a cat", "it is red</think> a cat"),
        ("it is red</think> a cat", "it is red</think> a cat"),
    ],
)
def test_a_thought_is_opened_once(response: str, explained: str) -> None:
    prompt = render(with_template(OPENS), QUESTION, [PICTURE])
    assert prompt.text.endswith("<think>\n")
    assert TOKENIZER.decode(answer_ids(PROCESSOR, prompt, response)) == explained


def test_a_thought_that_the_prompt_has_closed_is_not_doubled() -> None:
    prompt = render(with_template(OPENS.replace("<think>\n", "<think>\n\n</think>\n\n")), QUESTION, [PICTURE])
    for response in ("<think>\n\n</think>\n\na cat", "a cat"):
        assert TOKENIZER.decode(answer_ids(PROCESSOR, prompt, response)) == "a cat"


def test_an_answer_that_never_ends_its_thought_is_warned_of(explainer: Explainer) -> None:
    thinking = Explainer(explainer.model, with_template(OPENS))
    with pytest.warns(UserWarning, match="holds no </think>"):
        found = thinking.explain(PICTURE, QUESTION, "a cat")
    assert "".join(found.tokens) == "a cat"
    assert any("prompt ends in <think>, and the answer holds no </think>" in w for w in found.diagnostics["warnings"])
    closed = thinking.explain(PICTURE, QUESTION, "<think>\nit</think> a cat")
    assert not [warning for warning in closed.diagnostics["warnings"] if "think" in warning]


def test_an_answer_that_only_opens_a_thought_is_empty() -> None:
    with pytest.raises(InputError, match="answer is empty: it only opens the thought"):
        answer_ids(PROCESSOR, render(with_template(OPENS), QUESTION, [PICTURE]), "<think>\n")


def test_a_template_that_takes_no_answers_leaves_an_answer_as_it_is() -> None:
    template = "{% if messages | length > 1 %}{{ raise_exception('one message') }}{% endif %}" + TEMPLATE
    prompt = render(with_template(template), QUESTION, [PICTURE])
    assert TOKENIZER.decode(answer_ids(PROCESSOR, prompt, "the cat")) == "the cat"
