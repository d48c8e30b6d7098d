"""What is shown of a method that weighs no tokens: no weights, anywhere."""

from pathlib import Path
from typing import Any

import pytest
import torch
from report_examples import explanation

from dexar_fast import compare_html
from dexar_fast.explanation import Explanation
from dexar_fast.report import scales

WORDS = [f" w{n}" for n in range(31)]


def unweighted(**changes: Any) -> Explanation:
    none = torch.zeros(len(WORDS), 0, 0)
    heads: dict[str, Any] = {"head_weights": none, "visual_scores": none, "text_scores": none}
    metadata = {"settings": {"method": "tam"}, "question": "Why?", "prompt": "USER: Why?"}
    fields = {"weights": [1] * len(WORDS), "diagnostics": {"weighted": False}, "metadata": metadata}
    return explanation(WORDS, **fields | heads | changes)


def test_the_repr_and_the_notebook_cell_name_no_weight() -> None:
    made = unweighted()
    assert repr(made).startswith("<Explanation: 31 tokens, 12 visual tokens; tokens: ' w0', ' w1',")
    cell = made._repr_html_()
    assert "weight" not in cell and "background" not in cell and "31 tokens" in cell
    assert "weight 0.5" in explanation(weights=[0.5, 1, 2])._repr_html_()


def test_the_figure_names_tokens_alone_and_says_which_they_are() -> None:
    figure, axes = unweighted().plot(max_tokens=3)
    assert [ax.get_title() for ax in axes] == ["image", "whole answer", "w0", "w1", "w2"]
    assert "3 of 31 tokens: the first ones" in figure.get_suptitle()
    assert "weight" not in scales.legend(unweighted(), True)


def test_the_animation_colours_no_words() -> None:
    from dexar_fast.report.drawing import colours

    hottest = tuple(int(part) for part in colours.palette()[-1])
    for made, found in ((unweighted(), False), (explanation([" a", " b"], weights=[1, 1]), True)):
        frame = made.frames(width=200)[0]
        below = frame.crop((0, 134, 200, frame.height))  # under a picture of 60 x 40
        assert (hottest in {colour for _, colour in below.getcolors(2**16)}) == found


@pytest.fixture
def pages(tmp_path: Path) -> dict[str, str]:
    weighted = explanation(WORDS, weights=[2] * len(WORDS), metadata=unweighted().metadata)
    other = unweighted(metadata={"question": "When?", "prompt": "USER: When?"})
    sides = {"none": [unweighted()] * 2, "one": [unweighted(), weighted], "asked": [unweighted(), other]}
    for name, explanations in sides.items():
        compare_html(explanations, tmp_path / name, titles=["tam", "dex-ar"])
    return {name: (tmp_path / name).read_text("utf-8") for name in sides}


def test_a_page_offers_scales_by_weight_where_a_method_weighs_tokens(pages: dict[str, str]) -> None:
    assert "By weight" in pages["one"] and "arXiv 2603.06302" in pages["one"]
    assert "By weight" not in pages["none"] and "arXiv" not in pages["none"] and "Head weights" not in pages["none"]


def test_a_page_says_once_what_its_methods_share(pages: dict[str, str]) -> None:
    assert pages["one"].count(">Why?</p>") == 1 and pages["one"].count(">USER: Why?</pre>") == 1
    for text in (">Why?</p>", ">When?</p>", ">USER: Why?</pre>", ">USER: When?</pre>"):
        assert pages["asked"].count(text) == 1


def test_no_page_counts_layers_and_heads_of_a_method_without_them(pages: dict[str, str]) -> None:
    assert "0 layers" not in "".join(pages.values()) and "0 heads" not in "".join(pages.values())
    assert pages["one"].count('<p class="sizes">31 tokens · 12 visual tokens</p>') == 1  # under the title "tam"
    assert (
        pages["one"].count(
            '<p class="sizes">tam · 31 tokens · 12 visual tokens · 2 layers \N{MULTIPLICATION SIGN} 4 heads</p>'
        )
        == 1
    )
