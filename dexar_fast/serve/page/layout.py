"""Where everything stands on the page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from dexar_fast.methods import registry
from dexar_fast.serve.limits import Limits
from dexar_fast.serve.page import parts
from dexar_fast.serve.page.examples import Example

NONE = "none"
HINT = "The picture and its map come here. Take an example, or drop a picture and ask about it."
WHAT = "Ask about a picture, and see for each word of the answer where in the picture it came from."
HIDES = "Paint over a part of the picture: how likely is each token of the answer without it?"
CHECKS = "The map is only worth what it predicts: hide its top, and see whether the answer suffers more than by chance."
TEXT_SETS = ["all", "content", "prompt", "generated"]


@dataclass(frozen=True)
class Layout:
    """The components that take part in what happens, by name."""

    model: gr.Dropdown
    pictures: gr.HTML
    question: gr.Textbox
    ask: gr.Button
    follow: gr.Button
    stop: gr.Button
    examples: gr.HTML
    choices: list[Any]  # in the order of the fields of Choices
    turns: gr.HTML
    said: gr.HTML
    frame: gr.HTML
    answer: gr.Textbox
    explain: gr.Button
    compare: gr.Button
    brush: gr.HTML
    hide: gr.Button
    hide_top: gr.Button
    changes: gr.HTML
    check: gr.Button
    saves: list[gr.Button]
    saver: gr.HTML


def build(names: Sequence[str], examples: Sequence[Example], limits: Limits) -> Layout:
    """Draws the page inside a `gr.Blocks`."""
    gr.HTML(f"<h1>dexar_fast</h1><p>{WHAT}</p>", elem_id="head")
    with gr.Row():
        with gr.Column(scale=3, min_width=300):
            asking = _asking(names, examples, limits)
            choices = _choices(limits)
        with gr.Column(scale=9, min_width=320):
            shown = _shown()
            with gr.Tabs():
                tools = _editing(limits) | _hiding() | _checking() | _saving()
    return Layout(**asking, choices=choices, **shown, **tools)


def _asking(names: Sequence[str], examples: Sequence[Example], limits: Limits) -> dict[str, Any]:
    found: dict[str, Any] = {
        "model": gr.Dropdown(list(names), value=names[0], label="Model", visible=len(names) > 1),
        "pictures": parts.pictures(limits.pictures, limits.file_bytes),
        "question": gr.Textbox(
            label="Question",
            placeholder="Describe the image.",
            max_lines=4,
            max_length=limits.letters,
            elem_id="question",
        ),
    }
    with gr.Row():
        found["ask"] = gr.Button("Ask", variant="primary", elem_id="ask", min_width=70)
        found["follow"] = gr.Button("Ask next", elem_id="follow", min_width=90)
        found["stop"] = gr.Button("Stop", elem_id="stop", min_width=60)
    return found | {"examples": parts.examples(examples)}


def _choices(limits: Limits) -> list[Any]:
    methods = registry.names()
    with gr.Accordion("How to explain", open=False):
        return [
            gr.Dropdown(methods, value="dex-ar", label="Method"),
            gr.Dropdown([NONE, *methods], value=NONE, label="Compare with"),
            gr.Textbox("", label="Layers", placeholder="all, or 0,1,-1", max_length=400, info="of dex-ar"),
            gr.Dropdown(TEXT_SETS, value="all", label="Keys that count as text", info="of dex-ar"),
            gr.Checkbox(label="Text relevance: which earlier words each token rests on", info="of dex-ar"),
            gr.Radio(["token", "word"], value="token", label="Show as one"),
            gr.Slider(1, limits.tokens, value=min(64, limits.tokens), step=1, label="Tokens of an answer, at most"),
        ]


def _shown() -> dict[str, Any]:
    return {"turns": parts.turns(), "said": parts.said(), "frame": parts.frame(HINT)}


def _editing(limits: Limits) -> dict[str, Any]:
    with gr.Tab("Edit"):
        answer = gr.Textbox(label="Answer", lines=2, max_length=limits.letters, elem_id="answer")
        with gr.Row():
            explain = gr.Button("Explain this answer", elem_id="explain")
            compare = gr.Button("Compare with the model's", elem_id="compare")
    return {"answer": answer, "explain": explain, "compare": compare}


def _hiding() -> dict[str, Any]:
    with gr.Tab("Hide"):
        gr.Markdown(HIDES)
        brush = parts.brush()
        with gr.Row():
            hide = gr.Button("Hide what is painted", elem_id="hide")
            top = gr.Button("Hide the hottest tenth", elem_id="hide-top")
        changes = parts.changes()
    return {"brush": brush, "hide": hide, "hide_top": top, "changes": changes}


def _checking() -> dict[str, Any]:
    with gr.Tab("Check"):
        gr.Markdown(CHECKS)
        check = gr.Button("Check the map", elem_id="check")
    return {"check": check}


def _saving() -> dict[str, Any]:
    names = {"save-report": "Report (HTML)", "save-arrays": "Numbers (safetensors)", "save-gif": "Animation (GIF)"}
    with gr.Tab("Save"):
        with gr.Row():
            saves = [gr.Button(text, elem_id=name) for name, text in names.items()]
        saver = parts.saver()
    return {"saves": saves, "saver": saver}
