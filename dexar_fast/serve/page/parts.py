"""The page's own components: pictures that are read in the browser, the frame of the report, a brush, a saver."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gradio as gr
from markupsafe import Markup

from dexar_fast.serve.page.examples import Example
from dexar_fast.serve.work.growing import asset

PICTURE = {
    "type": "object",
    "properties": {"data": {"type": "string"}, "name": {"type": "string"}, "seconds": {"type": "number"}},
    "required": ["data"],
    "description": "data: data:image/png;base64,...; seconds: of a frame of a video",
}
DOT = "data:image/gif;base64,R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7"
PICTURES = {"type": "array", "items": PICTURE}
STATE = {"type": "object", "description": "page: the report as HTML; final: that of the finished answer"}
MASKS = {"type": "object", "description": "masks: for each picture a PNG as a data URI, painted where hidden"}
PAIRS = {"type": "array", "items": {"type": "array", "items": {"type": "string"}}}
FILE = {"type": "object", "description": "name; data: the file in base64"}
LINE = {"type": "object", "description": "kind: busy, news or error; text; answered: whether tools have an answer"}
TOKENS = {"type": "object", "description": "tokens: text, and the probability before and after; masks: what was hidden"}
FRAME = '<p class="nothing-yet">{}</p><iframe title="What the model looked at" sandbox="allow-scripts" hidden></iframe>'
TURNS = '<section aria-label="Conversation" hidden><h2>Before</h2><ol></ol></section>'
CHANGES = """<div class="scrolls"><table hidden aria-label="Probability of each token"><thead><tr>
<th scope="col">Token</th><th scope="col" class="bars"><i class="before"></i> whole <i class="after"></i> hidden</th>
<th scope="col">Whole</th><th scope="col">Hidden</th><th scope="col">Change</th></tr></thead>
<tbody></tbody></table></div>"""
CLICKED = """element.querySelectorAll("[data-n]").forEach((button) =>
  button.addEventListener("click", () => trigger("click", { n: Number(button.dataset.n) })));"""


def own(
    elem_id: str,
    template: str,
    script: str,
    schema: dict[str, Any],
    value: Any = None,
    example: Any = None,
    **props: Any,
) -> gr.HTML:
    """A component whose value is plain JSON, drawn by a script of ours.

    `example`: what the page about the API shows for it. No subclass of Gradio's: it would write a .pyi file beside this
    one on import.
    """
    found = gr.HTML(value, label=elem_id, html_template=template, js_on_load=script, elem_id=elem_id, **props)
    found.api_info = lambda: schema  # type: ignore[method-assign]
    found.example_value = lambda: example  # type: ignore[method-assign]
    found.example_payload = found.example_value  # type: ignore[method-assign]
    return found


def pictures(most: int, file_bytes: int, pixels: int) -> gr.HTML:
    """Where pictures are dropped; they are data URIs, and never become a file of the server."""
    options = {"most": most, "bytes": file_bytes, "pixels": pixels}
    return own("pictures", asset("pictures.html"), asset("pictures.js"), PICTURES, None, [{"data": DOT}], **options)


def frame(hint: str) -> gr.HTML:
    """Where the report stands; until then a hint."""
    return own("report", FRAME.format(hint), asset("frame.js"), STATE)


def brush() -> gr.HTML:
    """Where a region is painted."""
    return own("brush", asset("brush.html"), asset("brush.js"), MASKS)


def saver() -> gr.HTML:
    """What hands a file to the browser; it shows nothing."""
    return own("saver", "<span></span>", asset("saver.js"), FILE)


def said() -> gr.HTML:
    """A line of what happens, which screen readers speak."""
    return own("said", '<p role="status"></p><span class="time" aria-hidden="true"></span>', asset("said.js"), LINE)


def told() -> gr.HTML:
    """The same line beside the button that was pressed."""
    return gr.HTML('<p class="told" aria-hidden="true"></p>', elem_classes="tell")


def described(elem_id: str, choice: gr.Dropdown, lines: Mapping[str, str]) -> None:
    """Below a choice, the line of what is chosen."""
    script = asset("described.js")
    line = own(
        elem_id, "<p></p>", script, {"type": "string"}, choice.value, elem_classes="described", lines=dict(lines)
    )
    choice.input(None, choice, line, js="(chosen) => chosen", api_visibility="private")


def turns() -> gr.HTML:
    """The questions and answers before."""
    return own("turns", TURNS, asset("turns.js"), PAIRS, [])


def changes() -> gr.HTML:
    """The table of what hiding has changed."""
    return own("changes", CHANGES, asset("changes.js"), TOKENS)


def examples(given: Sequence[Example]) -> gr.HTML:
    """Buttons; a click says the number of the example."""
    buttons = "".join(_button(n, each) for n, each in enumerate(given))
    return own("examples", f'<h2>Examples</h2><div class="list">{buttons}</div>', CLICKED, {"type": "null"})


def _button(n: int, example: Example) -> Markup:
    several = f" ({len(example.pictures)} pictures)" * (len(example.pictures) > 1)
    asks = example.question + several
    text = (
        '<button type="button" id="example-{}" data-n="{}" aria-label="Example {}: {}"><img src="{}" alt="">{}</button>'
    )
    return Markup(text).format(n, n, n + 1, asks, example.small, asks)
