"""Prompts and answers with real tokenizers and a real processor, small enough to build here."""

from __future__ import annotations

from typing import Any

import pytest
import small_llava
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from small_llava import BOS, IMAGE, TEMPLATE, TEMPLATE_WITH_BOS
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from dexar_fast import Explainer, InputError
from dexar_fast.prompt.pieces import pieces
from dexar_fast.prompt.prompting import answer_ids, own_positions, process, question, render

QUICK = settings(max_examples=100, deadline=None, derandomize=True)
VISUAL = small_llava.SIDE**2  # tokens of an image
PICTURE = Image.new("RGB", (20, 30), "red")
TOKENIZERS = {"byte_level": small_llava.byte_level(), "metaspace": small_llava.metaspace()}


@pytest.fixture(params=TOKENIZERS)
def tokenizer(request: pytest.FixtureRequest) -> PreTrainedTokenizerFast:
    return TOKENIZERS[request.param]


@pytest.fixture
def processor(tokenizer: PreTrainedTokenizerFast) -> Any:
    return small_llava.processor(tokenizer)


def input_ids(processor: Any, prompt: str, images: int = 1) -> torch.Tensor:
    """[1, P], as `Explainer.explain` makes them."""
    return process(processor, render(processor, prompt, [PICTURE] * images))["input_ids"]


def tokens_at(processor: Any, ids: torch.Tensor, positions: torch.Tensor) -> list[str]:
    return processor.tokenizer.convert_ids_to_tokens(ids[0, positions].tolist())


def word(tokenizer: PreTrainedTokenizerFast, text: str) -> str:
    """The token of a word with a space before it."""
    return ("Ġ" if "Ġthe" in tokenizer.get_vocab() else "▁") + text


# What the user asked


@pytest.mark.parametrize(
    ("prompt", "asked"),
    [
        (" Describe the image.\n", "Describe the image."),
        (f"USER: {IMAGE}\nWhat? ASSISTANT:", "USER:  \nWhat? ASSISTANT:"),
        ([{"role": "user", "content": "First?"}, {"role": "assistant", "content": "It"}], "First?"),
        (
            [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": "First?"},
                {"role": "assistant", "content": "Yes."},
                {"role": "user", "content": [{"type": "text", "text": "And"}, {"type": "text", "text": "then?"}]},
                {"role": "user", "content": [{"type": "image", "image": PICTURE}]},
            ],
            "And then?",
        ),
    ],
)
def test_the_question_is_what_the_user_said_last(processor: Any, prompt: Any, asked: str) -> None:
    assert question(processor, prompt) == asked


def test_the_question_stands_in_the_metadata() -> None:
    found = Explainer.from_pretrained().explain(PICTURE, "Describe the image.", "A red square.")
    assert found.metadata["question"] == "Describe the image."
    assert found.metadata["prompt"] == "USER: <image>\nDescribe the image. ASSISTANT:"


# Where the image goes


def test_a_plain_prompt_goes_through_the_chat_template(processor: Any) -> None:
    prompt = render(processor, "Describe the image.", [PICTURE])
    assert prompt.text == "USER: <image>\nDescribe the image. ASSISTANT:"
    assert prompt.written is not None


def test_every_image_gets_its_place_in_the_template(processor: Any) -> None:
    prompt = render(processor, "Describe the image.", [PICTURE] * 3)
    assert prompt.text == "USER: " + "<image>\n" * 3 + "Describe the image. ASSISTANT:"
    ids = input_ids(processor, "Describe the image.", 3)
    assert (ids == processor.image_token_id).sum() == 3 * VISUAL


@pytest.mark.parametrize("text", ["USER: <image>\nWhat? ASSISTANT:", "Describe <image>", "<image>", " <image> a "])
def test_a_prompt_with_the_image_token_is_used_as_it_stands(processor: Any, text: str) -> None:
    assert render(processor, text, [PICTURE]).text == text
    assert render(processor, text + IMAGE, [PICTURE] * 2).text == text + IMAGE
    assert (input_ids(processor, text) == processor.image_token_id).sum() == VISUAL


def test_without_a_template_the_images_come_first(tokenizer: PreTrainedTokenizerFast) -> None:
    processor = small_llava.processor(tokenizer, template=None)
    prompt = render(processor, "Describe the image.", [PICTURE] * 2)
    assert (prompt.text, prompt.written) == ("<image><image>Describe the image.", None)
    assert (input_ids(processor, "Describe it", 2) == processor.image_token_id).sum() == 2 * VISUAL


@pytest.mark.parametrize("image", ["<start_of_image>", "<|image|>"])  # Gemma 3's, Gemma 4's
def test_the_token_that_the_processor_draws_out_stands_for_an_image(image: str) -> None:
    class Processor:
        boi_token, image_token, chat_template = "<start_of_image>", image, None

    assert render(Processor(), "Describe", [PICTURE] * 2).text == image * 2 + "Describe"
    assert render(Processor(), f"a {image} b", [PICTURE]).text == f"a {image} b"


@pytest.mark.parametrize(("count", "images"), [(2, 1), (1, 2), (3, 2)])
def test_image_tokens_must_match_the_images(processor: Any, count: int, images: int) -> None:
    with pytest.raises(InputError, match=rf"{count} image tokens '<image>' for {images} image.*write one for each"):
        render(processor, "What is it? " + IMAGE * count, [PICTURE] * images)


@pytest.mark.parametrize("prompt", ["", " \n\t"])
def test_an_empty_prompt_is_refused(processor: Any, prompt: Any) -> None:
    with pytest.raises(InputError, match="prompt is empty: ask"):
        render(processor, prompt, [PICTURE])


@pytest.mark.parametrize("prompt", [None, 7, ["What?"], [], b"What?"])
def test_what_is_no_prompt_is_refused(processor: Any, prompt: Any) -> None:
    with pytest.raises(InputError, match=f"must be a text, or a list of messages, not a {type(prompt).__name__}"):
        render(processor, prompt, [PICTURE])


# Special tokens


@pytest.mark.parametrize("template", [TEMPLATE, TEMPLATE_WITH_BOS, None])
@pytest.mark.parametrize("prompt", ["Describe the image.", f"USER: {IMAGE}\nit", f"{BOS}USER: {IMAGE}\nit"])
def test_a_prompt_begins_with_one_bos(tokenizer: PreTrainedTokenizerFast, template: str | None, prompt: str) -> None:
    ids = input_ids(small_llava.processor(tokenizer, template), prompt)
    assert ids[0, 0] == tokenizer.bos_token_id
    assert (ids == tokenizer.bos_token_id).sum() == 1


def test_a_processor_that_refuses_is_an_input_error(processor: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise ValueError("absolute aspect ratio must be smaller than 200")

    monkeypatch.setattr(type(processor), "__call__", refuse)
    with pytest.raises(InputError, match=r"LlavaProcessor cannot take this image.*aspect ratio"):
        process(processor, render(processor, "What?", [PICTURE]))


# Answers


@pytest.mark.parametrize("response", ["the cat", "a dog is on the mat.", "cat", "\u00fcber 猫", "the"])
@pytest.mark.parametrize("template", [TEMPLATE, TEMPLATE_WITH_BOS])
def test_an_answer_has_the_tokens_it_has_behind_the_prompt(
    tokenizer: PreTrainedTokenizerFast, template: str, response: str
) -> None:
    processor = small_llava.processor(tokenizer, template)
    prompt = render(processor, "Describe the image.", [PICTURE])
    ids = answer_ids(processor, prompt, response).tolist()
    before = tokenizer(prompt.text, add_special_tokens=False).input_ids
    whole = tokenizer(f"{prompt.text} {response}", add_special_tokens=False).input_ids
    assert whole == before + ids
    assert not {tokenizer.bos_token_id, tokenizer.eos_token_id} & set(ids)


def test_the_space_is_the_templates(tokenizer: PreTrainedTokenizerFast, processor: Any) -> None:
    prompt = render(processor, "Describe the image.", [PICTURE])
    spaced = tokenizer.convert_tokens_to_ids([word(tokenizer, "the"), word(tokenizer, "cat")])
    for response in ("the cat", " the cat", "\nthe cat"):
        assert answer_ids(processor, prompt, response).tolist() == spaced
    alone = tokenizer("the cat", add_special_tokens=False).input_ids
    assert (alone != spaced) == (tokenizer is TOKENIZERS["byte_level"])  # Llama's puts a space before any text


def test_a_template_that_ends_in_a_newline_places_no_space(tokenizer: PreTrainedTokenizerFast) -> None:
    template = TEMPLATE.replace("'ASSISTANT:'", "'ASSISTANT:\n'").replace("': '", "':\n'")
    processor = small_llava.processor(tokenizer, template)
    prompt = render(processor, "Describe the image.", [PICTURE])
    assert prompt.text.endswith("ASSISTANT:\n")
    ids = answer_ids(processor, prompt, "the cat").tolist()
    before = tokenizer(prompt.text, add_special_tokens=False).input_ids
    assert tokenizer(prompt.text + "the cat", add_special_tokens=False).input_ids == before + ids


def test_without_a_template_an_answer_stands_as_it_was_given(tokenizer: PreTrainedTokenizerFast) -> None:
    for processor in (small_llava.processor(tokenizer, None), small_llava.processor(tokenizer)):
        prompt = render(processor, f"USER: {IMAGE}\nDescribe it ASSISTANT:", [PICTURE])
        given, spaced = (answer_ids(processor, prompt, answer).tolist() for answer in ("cat", " cat"))
        assert given != spaced
        assert spaced[0] == tokenizer.convert_tokens_to_ids(word(tokenizer, "cat"))


def test_an_answer_that_merges_with_the_prompt_is_taken_alone() -> None:
    """'im' + 'age' is one token: the prompt's own tokens are fixed, so the answer is what it is by itself."""
    tokenizer = TOKENIZERS["byte_level"]
    processor = small_llava.processor(tokenizer, None)
    prompt = render(processor, f"{IMAGE} im", [PICTURE])
    assert tokenizer(prompt.text + "age", add_special_tokens=False).input_ids[-1] == tokenizer.convert_tokens_to_ids(
        word(tokenizer, "image")
    )
    for answer in ("age", "age the cat"):
        ids = answer_ids(processor, prompt, answer).tolist()
        assert ids == tokenizer(answer, add_special_tokens=False).input_ids
        assert tokenizer.decode(ids) == answer


def test_a_tokenizer_that_ends_every_text_still_sees_the_answer_behind_the_prompt() -> None:
    """As T5's and BERT's do. Alone, Llama's kind of tokenizer would put a space before the answer."""
    ending = small_llava.metaspace()
    ids = [(token, ending.convert_tokens_to_ids(token)) for token in (BOS, small_llava.EOS)]
    ending.backend_tokenizer.post_processor = TemplateProcessing(single="<s> $A </s>", special_tokens=ids)
    processor = small_llava.processor(ending)
    prompt = render(processor, f"{IMAGE} it:", [PICTURE])
    assert answer_ids(processor, prompt, "cat").tolist() == [ending.convert_tokens_to_ids("cat")]


def test_an_answer_that_a_decoder_reads_alone_takes_nothing_of_the_prompt(processor: Any) -> None:
    prompt = render(processor, "Describe the image.", [PICTURE])
    for answer in ("cat", "the cat"):
        alone = processor.tokenizer(answer, add_special_tokens=False).input_ids
        assert answer_ids(processor, prompt, answer, opening=[]).tolist() == alone
        assert answer_ids(processor, prompt, answer, opening=[0]).tolist() == [0, *alone]
        assert answer_ids(processor, prompt, answer, opening=alone[:1]).tolist() == alone  # it says so itself


def test_an_explained_answer_reads_as_it_was_given(processor: Any) -> None:
    explainer = Explainer(small_llava.model(processor.tokenizer), processor)
    for response in ("the cat 🙂 is", "a dog"):
        found = explainer.explain(PICTURE, "Describe the image.", response)
        assert "".join(found.tokens).strip() == response
        assert found.metadata["prompt"] == "USER: <image>\nDescribe the image. ASSISTANT:"


@pytest.mark.parametrize("response", [7, ["the cat"]])
def test_an_answer_that_is_no_text_is_refused(processor: Any, response: Any) -> None:
    with pytest.raises(InputError, match=f"the answer must be a text, not a {type(response).__name__}"):
        answer_ids(processor, render(processor, "What?", [PICTURE]), response)


@pytest.mark.parametrize("response", ["", "  \n"])
def test_an_empty_answer_is_refused(processor: Any, response: Any) -> None:
    with pytest.raises(InputError, match="answer is empty: give response="):
        answer_ids(processor, render(processor, "What?", [PICTURE]), response)


# The user's own text


def own(processor: Any, prompt: str, images: int = 1) -> tuple[list[int], list[str]]:
    """Positions of the user's text, and their tokens."""
    ids = input_ids(processor, prompt, images)
    positions = own_positions(processor, render(processor, prompt, [PICTURE] * images), ids)
    assert positions.dtype == torch.int64
    return positions.tolist(), tokens_at(processor, ids, positions)


def behind(processor: Any, prompt: str, positions: list[int]) -> str:
    """What stands behind the user's text."""
    return processor.tokenizer.decode(input_ids(processor, prompt)[0, positions[-1] + 1 :]).strip()


@pytest.mark.parametrize("prompt", ["Describe the image.", "  Describe the image.\n"])
def test_the_users_text_in_a_chat_template(tokenizer: PreTrainedTokenizerFast, prompt: str) -> None:
    processor = small_llava.processor(tokenizer, TEMPLATE_WITH_BOS)  # strips the text
    positions, tokens = own(processor, prompt)
    assert [token.lstrip("Ġ▁") for token in tokens] == ["Describe", "the", "image", "."]
    assert behind(processor, prompt, positions) == "ASSISTANT:"


def test_text_that_the_template_holds_too_is_found_where_the_user_wrote_it(tokenizer: PreTrainedTokenizerFast) -> None:
    """'USER' is the template's word first; the user's comes second."""
    processor = small_llava.processor(tokenizer)
    for prompt in ("USER", "USER: ", ":"):
        positions, tokens = own(processor, prompt)
        assert "".join(tokens).lstrip("▁") == prompt.strip()
        assert behind(processor, prompt, positions) == "ASSISTANT:"


def test_two_images_before_the_text(tokenizer: PreTrainedTokenizerFast, processor: Any) -> None:
    positions, tokens = own(processor, "Describe the image.", 2)
    assert [token.lstrip("Ġ▁") for token in tokens] == ["Describe", "the", "image", "."]
    ids = input_ids(processor, "Describe the image.", 2)[0]
    assert positions[0] > int((ids == processor.image_token_id).nonzero()[-1])


def test_text_on_both_sides_of_the_image(tokenizer: PreTrainedTokenizerFast, processor: Any) -> None:
    positions, tokens = own(processor, f"Describe {IMAGE} it is red")
    assert [token.lstrip("Ġ▁") for token in tokens if token not in "Ġ▁"] == ["Describe", "it", "is", "red"]
    assert positions[0] == 1  # behind the BOS
    ids = input_ids(processor, f"Describe {IMAGE} it is red")[0]
    visual = (ids == processor.image_token_id).nonzero()[:, 0].tolist()
    assert positions[1] > visual[-1] and positions[-1] == len(ids) - 1
    assert not set(positions) & set(visual)


def test_the_same_word_on_both_sides_of_the_image(processor: Any) -> None:
    text = f"cat {IMAGE} cat {IMAGE} cat"
    positions, tokens = own(processor, text, 2)
    ids = input_ids(processor, text, 2)[0]
    cats = [n for n, token in enumerate(tokens_at(processor, ids[None], torch.arange(len(ids)))) if "cat" in token]
    assert len(cats) == 3
    assert [n for n, token in zip(positions, tokens, strict=True) if "cat" in token] == cats


def test_the_word_image_is_not_the_image_token(processor: Any) -> None:
    positions, tokens = own(processor, f"{IMAGE}image")
    assert [token.lstrip("▁") for token in tokens] == ["image"]
    assert positions == [1 + VISUAL]


def test_an_image_token_alone_leaves_no_text(processor: Any) -> None:
    assert own(processor, IMAGE) == ([], [])


def test_characters_of_several_tokens(tokenizer: PreTrainedTokenizerFast, processor: Any) -> None:
    positions, _ = own(processor, "it is 🙂 猫")
    ids = input_ids(processor, "it is 🙂 猫")
    assert positions == list(range(positions[0], positions[0] + len(positions)))
    assert tokenizer.decode(ids[0, positions]) == "it is 🙂 猫"


def test_only_the_users_text_and_the_answer_count_as_content(processor: Any) -> None:
    model = small_llava.model(processor.tokenizer)
    explainer = Explainer(model, processor, text_set="content")
    found = explainer.explain(PICTURE, "Describe the image.", "the cat is red")
    positions, _ = own(processor, "Describe the image.")
    prompt = found.metadata["prompt_tokens"]
    winners = {winner["position"] for winner in found.diagnostics["text_winners"]}
    assert winners and winners <= {*positions, *range(prompt, prompt + 4)}
    everything = Explainer(model, processor).explain(PICTURE, "Describe the image.", "the cat is red")
    assert (found.text_scores <= everything.text_scores).all()
    assert (found.text_scores < everything.text_scores).any()


@QUICK
@given(prompt=st.text(st.sampled_from("it cat.US:🙂\n"), min_size=1), name=st.sampled_from(sorted(TOKENIZERS)))
def test_any_text_is_found_whole(prompt: str, name: str) -> None:
    if not prompt.strip():
        return
    processor = PROCESSORS[name]
    ids = input_ids(processor, prompt)
    positions = own_positions(processor, render(processor, prompt, [PICTURE]), ids)
    assert prompt.strip() in processor.tokenizer.decode(ids[0, positions.min() - 1 : positions.max() + 1])
    behind = ids[0, positions.max() + 1 :]
    assert processor.tokenizer.decode(behind).strip() == "ASSISTANT:"


PROCESSORS = {name: small_llava.processor(tokenizer) for name, tokenizer in TOKENIZERS.items()}


def test_a_tokenizer_without_offsets_is_refused(processor: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = input_ids(processor, "What?")
    monkeypatch.setattr(type(processor.tokenizer), "is_fast", False)
    with pytest.raises(InputError, match=r"fast tokenizer.*text_set='all'"):
        own_positions(processor, render(processor, "What?", [PICTURE]), ids)


def test_a_template_that_rewrites_the_text_is_refused(tokenizer: PreTrainedTokenizerFast) -> None:
    processor = small_llava.processor(tokenizer, TEMPLATE.replace("part['text']", "part['text'] | upper"))
    with pytest.raises(InputError, match="changes the user's text: use text_set='all'"):
        own(processor, "Describe the image.")


def test_a_processor_that_rewrites_the_text_is_refused(processor: Any) -> None:
    ids = input_ids(processor, "it is red")
    with pytest.raises(InputError, match="not found in the processed prompt: use text_set='all'"):
        own_positions(processor, render(processor, "Describe the image.", [PICTURE]), ids)


# Texts of tokens


@pytest.mark.parametrize(
    "text",
    ["the cat is on the mat.", "the 🙂🙂 cat", "猫がいる", "a\n\n  b", "🙂", "é", "👩‍👩‍👧 cat", "the  cat", "x" * 30],
)
def test_pieces_make_up_the_text(tokenizer: PreTrainedTokenizerFast, text: str) -> None:
    ids = tokenizer(text).input_ids
    found = pieces(tokenizer, ids)
    assert len(found) == len(ids)
    assert "".join(found) == tokenizer.decode(ids)
    assert text in tokenizer.decode(ids)


@QUICK
@given(text=st.text(max_size=20), name=st.sampled_from(sorted(TOKENIZERS)))
def test_the_pieces_of_any_text_make_it_up(text: str, name: str) -> None:
    tokenizer = TOKENIZERS[name]
    ids = tokenizer("it is " + text).input_ids
    found = pieces(tokenizer, ids)
    assert "".join(found) == tokenizer.decode(ids)
    assert len(found) == len(ids)


def test_words_keep_the_space_before_them(tokenizer: PreTrainedTokenizerFast) -> None:
    ids = tokenizer("it is red", add_special_tokens=False).input_ids
    assert pieces(tokenizer, ids) == ["it", " is", " red"]
    assert pieces(tokenizer, ids * 2)[3:] in (["it", " is", " red"], [" it", " is", " red"])


def test_a_character_is_the_piece_of_its_last_token() -> None:
    tokenizer = TOKENIZERS["byte_level"]
    ids = tokenizer("cat 🙂 is", add_special_tokens=False).input_ids
    assert pieces(tokenizer, ids) == ["cat", " ", "", "", "", "🙂", " is"]


def test_bytes_that_are_no_character_are_not_held_back() -> None:
    tokenizer = TOKENIZERS["byte_level"]
    first = tokenizer("🙂", add_special_tokens=False).input_ids[0]
    cat = tokenizer("cat", add_special_tokens=False).input_ids
    found = pieces(tokenizer, [first] * 9 + cat)
    assert "".join(found) == tokenizer.decode([first] * 9 + cat)
    assert max(len(piece) for piece in found) <= 4
    assert pieces(tokenizer, [first]) == ["\ufffd"]


def test_special_tokens_are_pieces(tokenizer: PreTrainedTokenizerFast) -> None:
    ids = tokenizer(f"{IMAGE} cat").input_ids
    found = pieces(tokenizer, ids)
    assert found[:2] == [BOS, IMAGE]
    assert found[-1] == " cat"


def test_without_a_tokenizer_a_piece_is_the_id() -> None:
    assert pieces(None, [5, 17]) == ["5", "17"]


def test_no_ids_have_no_pieces(tokenizer: PreTrainedTokenizerFast) -> None:
    assert pieces(tokenizer, []) == []
