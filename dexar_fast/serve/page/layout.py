"""Where everything stands on the page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import gradio as gr
from markupsafe import Markup

from dexar_fast.methods import registry
from dexar_fast.methods.described import CHANCE, DESCRIBED
from dexar_fast.methods.dex_ar import DexAr
from dexar_fast.serve.limits import Limits
from dexar_fast.serve.models import EMBEDDED, Models
from dexar_fast.serve.page import parts
from dexar_fast.serve.page.examples import Example

NONE = "none"
HINT = "The picture and its map come here. Take an example, or drop a picture and ask about it."
WHAT = "Ask about a picture, and see for each word of the answer where in the picture it came from."
HIDES = "Paint over a part of the picture: how likely is each token once that is blurred? Shapes go, colours stay."
EDITS = "Explained as “How to explain” says now."
CHECKS = "The map is only worth what it predicts: hide its top, and see whether the answer suffers more than by chance."
SHAPES = "It knows coloured shapes alone: what it says of a photograph means nothing."
METHOD_HELP = "dex-ar and attention follow the answer as it is written; others explain it at its end, some in minutes."
OF_DEX_AR = "Used by dex-ar only"
LENGTH = "Tokens of an answer, at most"
TEXT_SETS = ["all", "content", "prompt", "generated"]


Choice = TypeVar("Choice", gr.Dropdown, gr.Radio, gr.Slider)


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


def build(models: Models, examples: Sequence[Example], limits: Limits) -> Layout:
    """Draws the page inside a `gr.Blocks`."""
    gr.HTML(_head(models), elem_id="head")
    with gr.Row():
        with gr.Column(scale=3, min_width=300, elem_classes="asking"):
            asking = _asking(models, examples, limits)
            choices = _choices(limits)
        with gr.Column(scale=9, min_width=320):
            shown = _shown()
            with gr.Tabs():
                tools = _editing() | _hiding() | _checking() | _saving()
    return Layout(**asking, choices=choices, **shown, **tools)


def _head(models: Models) -> str:
    """What this is, by which models, and what the embedded one cannot do."""
    limits = SHAPES if EMBEDDED in models.names else ""
    line = Markup("<p>Model: <strong>{}</strong>. {}</p>").format(", ".join(models.labels), limits)
    return f"<h1>dexar_fast</h1><p>{WHAT}</p>{line}"


def _asking(models: Models, examples: Sequence[Example], limits: Limits) -> dict[str, Any]:
    served = [*zip(models.labels, models.names, strict=True)]
    found: dict[str, Any] = {
        "model": _unchecked(gr.Dropdown(served, value=models.first, label="Model", visible=len(served) > 1)),
        "pictures": parts.pictures(limits.pictures, limits.file_bytes, limits.pixels),
        "question": gr.Textbox(
            label="Question",
            placeholder="Ask something about the picture",
            max_lines=4,
            elem_id="question",
        ),
    }
    found["question"].example_value = found["question"].example_payload = lambda: "Describe the image."
    with gr.Row():
        found["ask"] = gr.Button("Ask", variant="primary", elem_id="ask", min_width=70)
        found["follow"] = gr.Button("Follow up", elem_id="follow", min_width=90)
        found["stop"] = gr.Button("Stop", elem_id="stop", min_width=60)
    parts.told()
    return found | {"examples": parts.examples(examples)}


def _choices(limits: Limits) -> list[Any]:
    methods = _methods()
    with gr.Accordion("How to explain", open=False):
        method = _unchecked(gr.Dropdown(methods, value=DexAr.name, label="Method", info=METHOD_HELP))
        parts.described("method-line", method, _lines())
        other = _unchecked(gr.Dropdown([(NONE, NONE), *methods], value=NONE, label="Compare with"))
        parts.described("other-line", other, _lines())
        return [
            method,
            other,
            gr.Textbox("all", label="Layers", placeholder="all, or 0,1,-1", max_length=400, info=OF_DEX_AR),
            _unchecked(gr.Dropdown(TEXT_SETS, value="all", label="Text that a head is compared with", info=OF_DEX_AR)),
            gr.Checkbox(label="Text relevance: which earlier words each token rests on", info=OF_DEX_AR),
            _unchecked(gr.Radio(["token", "word"], value="token", label="A map for each")),
            _unchecked(gr.Slider(1, limits.tokens, value=min(64, limits.tokens), step=1, label=LENGTH)),
        ]


def _unchecked(component: Choice) -> Choice:
    """Gradio's own check of what an API client sends would end in the log, as a traceback with what was sent."""
    component.preprocess = lambda payload: payload  # type: ignore[method-assign]
    return component


def _methods() -> list[tuple[str, str]]:
    """Labels and names: DEX-AR first, what knows nothing of the picture last."""
    blind = [name for name in registry.names() if DESCRIBED.get(name) is CHANCE]
    known = sorted(registry.names(), key=lambda name: (name in blind, name != DexAr.name, name))
    return [(f"chance: {name}" if name in blind else name, name) for name in known]


def _lines() -> dict[str, str]:
    """What each method's map is, and when it misleads."""
    return {name: f"{each.map}. Beware: {each.misleads}." for name, each in DESCRIBED.items()}


def _shown() -> dict[str, Any]:
    return {"turns": parts.turns(), "said": parts.said(), "frame": parts.frame(HINT)}


def _editing() -> dict[str, Any]:
    with gr.Tab("Edit"):
        answer = gr.Textbox(label="Answer", lines=2, elem_id="answer")
        with gr.Row():
            explain = gr.Button("Explain this answer", elem_id="explain")
            compare = gr.Button("Compare with the model's", elem_id="compare")
        gr.Markdown(EDITS)
        parts.told()
    return {"answer": answer, "explain": explain, "compare": compare}


def _hiding() -> dict[str, Any]:
    with gr.Tab("Hide"):
        gr.Markdown(HIDES)
        brush = parts.brush()
        with gr.Row():
            hide = gr.Button("Hide what is painted", elem_id="hide")
            top = gr.Button("Hide the hottest tenth", elem_id="hide-top")
        parts.told()
        changes = parts.changes()
    return {"brush": brush, "hide": hide, "hide_top": top, "changes": changes}


def _checking() -> dict[str, Any]:
    with gr.Tab("Check"):
        gr.Markdown(CHECKS)
        check = gr.Button("Check the map", elem_id="check")
        parts.told()
    return {"check": check}


def _saving() -> dict[str, Any]:
    names = {"save-report": "Report (HTML)", "save-arrays": "Numbers (safetensors)", "save-gif": "Animation (GIF)"}
    with gr.Tab("Save"):
        with gr.Row():
            saves = [gr.Button(text, elem_id=name) for name, text in names.items()]
        parts.told()
        saver = parts.saver()
    return {"saves": saves, "saver": saver}
