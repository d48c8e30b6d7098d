"""The words before each piece of an answer, as a page shows them: against a slow sum over tokens and keys."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zoo
from report_examples import check_report, data_of, explanation, read, unpacked

from dexar_fast import Explainer, compare_html
from dexar_fast.explanation import Explanation
from dexar_fast.report import plain_words, words
from dexar_fast.report.page import earlier
from dexar_fast.report.page.data import encode
from dexar_fast.results.text_relevance import TextRelevance

BROKEN = [" un", "believ", "able", "", "\U0001f642", "!", " The", " red", " cat"]
PROMPT = ["<s>", " Wh", "ich", " one", "?"]


def found(made: Explanation, by: str = "token") -> earlier.Earlier:
    result = earlier.earlier(made, words.pieces(made, by), by)
    assert result is not None
    return result


def slow(made: Explanation, prompt: list[list[int]], by: str) -> np.ndarray:
    """`prompt` has the positions of each word."""
    text, weights = made.text_relevance, made.token_weights.double().tolist()
    assert text is not None
    value = {(t, int(at)): float(text.maps[t, m]) for t in range(len(made)) for m, at in enumerate(text.positions)}
    start = made.metadata["prompt_tokens"]
    answer = [list(span) for span in words.pieces(made, by).spans]
    places = prompt + [[start + t for t in span] for span in answer]
    rows = []
    for piece, span in enumerate([*answer, list(range(len(made)))]):
        by_weight = {t: weights[t] for t in span} if any(weights[t] for t in span) else dict.fromkeys(span, 1.0)
        share = by_weight if len(span) > 1 else {span[0]: 1.0}
        row = [sum(share[t] * value.get((t, at), 0.0) for t in span for at in word) for word in places]
        own = len(prompt) + piece if piece < len(answer) else len(row)
        rows.append(row[:own] + [0.0] * (len(row) - own))
    return np.array(rows)


@pytest.mark.parametrize("weights", [[0.0] * 9, [0.0, 2, 1, 0, 0, 3, 0, 1, 0.5]])
@pytest.mark.parametrize(("by", "prompt"), [("token", [[0], [5], [6], [7], [8]]), ("word", [[0], [5, 6], [7], [8]])])
def test_it_is_the_sum_over_the_tokens_of_a_word(by: str, prompt: list[list[int]], weights: list[float]) -> None:
    made = read(BROKEN, PROMPT, weights=weights)
    result = found(made, by)
    expected = slow(made, prompt, by)
    np.testing.assert_allclose(result.rests, expected, rtol=1e-12)
    texts = [part.text for part in result.prompt if part.is_word]
    assert texts == (["<s>", "Wh", "ich", "one", "?"] if by == "token" else ["<s>", "Which", "one", "?"])
    texts += [words.shown(text)[1] for text in words.pieces(made, by).texts]
    for row, strongest in zip(expected, result.strongest, strict=True):
        best = sorted((k for k in range(len(row)) if row[k] > 0), key=lambda k: -row[k])[:3]
        assert strongest == [(texts[k], pytest.approx(row[k])) for k in best]


def test_the_prompt_reads_as_it_stands_with_marks_where_no_text_key_is() -> None:
    def shown(made: Explanation) -> str:
        return "".join(f"{p.before}[{p.text}]{p.after}" if p.is_word else f"{{{p.text}}}" for p in found(made).prompt)

    assert shown(read(image=range(1, 5))) == "[<s>]{⟨4 visual tokens⟩} [Which] [one][?]"
    assert shown(read(image=range(4, 5))) == "[<s>] [Which] [one][?]{⟨1 visual token⟩}"
    assert shown(read(prompt=["a", "\n", " b"], image=range(0, 1200))) == "{⟨1,200 visual tokens⟩}[a][↵]\n [b]"
    made = read(image=range(1, 5))
    text = made.text_relevance
    assert text is not None
    kept = torch.tensor([1, 2, 4])  # "Which", "one", the answer's first
    fewer = TextRelevance(
        text.positions[kept], [text.tokens[m] for m in kept], text.maps[:, kept], text.unfiltered_maps[:, kept]
    )
    assert shown(read(text_relevance=fewer)) == "{… ⟨4 visual tokens⟩} [Which] [one]{…}"


def test_a_piece_of_a_stream_counts_what_was_answered_before_as_read() -> None:
    made = read([" a", " b", " c", " d"])
    text = made.text_relevance
    assert text is not None
    rows = {name: getattr(text, name)[2:] for name in ("maps", "unfiltered_maps")}
    piece = read([" c", " d"], metadata=made.metadata, text_relevance=replace(text, **rows), weights=[1.0, 1.0])
    result = found(piece)
    assert [part.text for part in result.prompt if part.is_word] == ["<s>", "Which", "one", "?", "a", "b"]
    np.testing.assert_array_equal(result.rests[0], [*text.maps[2, :6], 0, 0])
    np.testing.assert_array_equal(result.rests[1], [*text.maps[3, :7], 0])


@pytest.mark.parametrize("metadata", [{"prompt_tokens": 8}, {"prompt_tokens": "8"}, {}])
def test_where_the_answer_begins_is_known_without_metadata(metadata: dict[str, Any]) -> None:
    np.testing.assert_array_equal(found(read(metadata=metadata)).rests, found(read()).rests)


def test_only_the_prompt_may_count_as_text() -> None:
    text = TextRelevance(torch.tensor([0, 5]), ["<s>", "?"], torch.rand(3, 2), torch.rand(3, 2))
    result = found(read(text_relevance=text))
    assert result.rests.shape == (4, 5) and not result.rests[:, 2:].any()
    nothing = TextRelevance(torch.zeros(0, dtype=torch.int64), [], torch.zeros(3, 0), torch.zeros(3, 0))
    empty = found(read(text_relevance=nothing))
    assert empty.rests.shape == (4, 3) and not empty.rests.any() and empty.strongest == [[]] * 4


def test_huge_numbers_and_an_empty_answer_make_a_page(tmp_path: Path) -> None:
    made = read(weights=[1e38, 1e38, 0.0])
    text = made.text_relevance
    assert text is not None
    huge = torch.full_like(text.maps, torch.finfo(torch.float64).max)
    check_report(replace(made, text_relevance=replace(text, maps=huge)), tmp_path)
    none = TextRelevance(torch.tensor([0, 5]), ["<s>", "?"], torch.zeros(0, 2), torch.zeros(0, 2))
    check_report(explanation([], text_relevance=none), tmp_path)
    hostile = read(["</span><b>", "'>"], ["</pre><script>alert(1)</script>", "&"], range(1, 2))
    hostile.to_html(tmp_path / "page.html")
    assert "<script>alert(1)" not in (tmp_path / "page.html").read_text("utf-8")


def test_ids_stand_apart() -> None:
    made = read(["0", "1", "2"], ["7", "8"], range(1, 2))
    assert [part.before + part.text for part in found(made, "word").prompt if part.is_word] == [" 7", " 8"]


def test_the_page_holds_them_in_steps_of_the_largest(tmp_path: Path) -> None:
    made = read(BROKEN, PROMPT)
    made.to_html(tmp_path / "page.html", by="word")
    held, result = data_of(tmp_path / "page.html")["reports"][0]["text"], found(made, "word")
    steps = unpacked(held["rests"]).reshape(result.rests.shape)
    largest = result.rests.max(1, keepdims=True)
    np.testing.assert_allclose(steps / held["steps"], result.rests / np.where(largest > 0, largest, 1), atol=0.5 / 255)
    names = [[(word, float(f"{value:.4g}")) for word, value in row] for row in result.strongest]
    assert [[tuple(pair) for pair in row] for row in held["strongest"]] == names
    explanation().to_html(tmp_path / "page.html")
    assert data_of(tmp_path / "page.html")["reports"][0]["text"] is None
    assert 'class="rests"' not in (tmp_path / "page.html").read_text("utf-8")


def test_the_page_says_what_a_line_means() -> None:
    def says(settings: dict[str, Any]) -> bool:
        return any(line.startswith("Underline") for line in plain_words.numbers(read(metadata={"settings": settings})))

    assert says({"text_relevance": True}) and not says({"text_relevance": False}) and not says({})


def test_a_prompt_that_all_share_stands_below_where_some_have_no_lines(tmp_path: Path) -> None:
    lined = read(metadata={"prompt": "Which one?", "prompt_tokens": 8})
    bare = replace(lined, text_relevance=None)
    for made, shown in (([lined, bare], 2), ([lined, lined], 2), ([bare, bare], 1)):
        compare_html(made, tmp_path / "both.html")
        page = (tmp_path / "both.html").read_text("utf-8")
        assert page.count("Prompt, as the model reads it") == shown
        assert page.count(">Which one?</pre>") == (bare in made)


def test_very_many_take_fewer_steps() -> None:
    made = read([f" w{n}" for n in range(800)], weights=[1.0] * 800)
    pieces = words.pieces(made, "token")
    text = encode(made, pieces, [], earlier.earlier(made, pieces, "token"))["text"]
    assert text["steps"] == 15 and unpacked(text["rests"]).max() == 15 and len(text["rests"]) < 400_000


@pytest.mark.parametrize("family", ["llava", "qwen2_5_vl", "idefics3", "paligemma2"])
def test_of_real_families(family: str, tmp_path: Path) -> None:
    model, inputs = zoo.build(family)
    given = {name: value for name, value in inputs.items() if name != "labels"}
    explainer, ids = Explainer(model, text_relevance=True), torch.tensor(zoo.Draw(5).words(4))
    for _ in range(2):  # one chunk after the prompt, then all in one forward
        made = explainer.explain_inputs(given, ids)
        result, text = found(made), made.text_relevance
        assert text is not None and result.rests.shape[1] == len(text.tokens) + 1
        np.testing.assert_allclose(result.rests[:4, :-1], text.maps, rtol=1e-12)
        marked = sum(int(p.text.split()[0][1:]) for p in result.prompt if not p.is_word)
        assert marked == len(made.visual_positions)
    check_report(made, tmp_path)
