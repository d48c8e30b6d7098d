"""The page's own components: pictures that are read in the browser, the frame of the report, a brush, a saver."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

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
FRAME = '<p class="nothing-yet">{}</p><iframe title="What the model looked at" sandbox="allow-scripts" hidden></iframe>'

CHANGES = """<table hidden aria-label="Probability of each token"><thead><tr>
<th scope="col">Token</th><th scope="col"><span>Whole, hidden</span></th><th scope="col">Whole</th>
<th scope="col">Hidden</th><th scope="col">Change</th></tr></thead><tbody></tbody></table>"""
CLICKED = """element.querySelectorAll("[data-n]").forEach((button) =>
  button.addEventListener("click", () => trigger("click", { n: Number(button.dataset.n) })));"""


class Own(gr.HTML):
    """A component whose value is plain JSON, drawn by a script of ours."""

    schema: ClassVar[dict[str, Any]] = {"type": "object"}

    def postprocess(self, value: Any) -> Any:
        """The value as it is: it is no HTML."""
        return value

    def api_info(self) -> dict[str, Any]:
        """What the API's page says of it."""
        return self.schema

    def example_payload(self) -> Any:
        return None

    example_value = example_payload


class Pictures(Own):
    """Pictures as data URIs; what is dropped, pasted or chosen never becomes a file of the server."""

    schema: ClassVar[dict[str, Any]] = {"type": "array", "items": PICTURE}


class Frame(Own):
    """The report, in a frame of its own."""

    schema: ClassVar[dict[str, Any]] = {"type": "object", "description": "page: the report as HTML; final: that of the finished answer"}


class Brush(Own):
    """What of the pictures to hide."""

    schema: ClassVar[dict[str, Any]] = {"type": "object", "description": "masks: for each picture a PNG as a data URI, painted where hidden"}


class Saver(Own):
    """A file for the visitor to save: its name, and its bytes in base64."""

    schema: ClassVar[dict[str, Any]] = {"type": "object", "description": "name; data: the file in base64"}


def pictures(most: int, file_bytes: int) -> Pictures:
    """Where pictures are dropped."""
    return Pictures(
        [], html_template=asset("pictures.html"), js_on_load=asset("pictures.js"), most=most, bytes=file_bytes,
        elem_id="pictures",
    )  # fmt: skip


def frame(hint: str) -> Frame:
    """Where the report stands; until then a hint."""
    return Frame(None, html_template=FRAME.format(hint), js_on_load=asset("frame.js"), elem_id="report")


def brush() -> Brush:
    """Where a region is painted."""
    return Brush(None, html_template=asset("brush.html"), js_on_load=asset("brush.js"), elem_id="brush")


def saver() -> Saver:
    """What hands a file to the browser; it shows nothing."""
    return Saver(None, html_template="<span></span>", js_on_load=asset("saver.js"), elem_id="saver")


def said() -> Own:
    """A line of what happens, which screen readers speak."""
    return Own(None, html_template='<p role="status"></p>', js_on_load=asset("said.js"), elem_id="said")


def turns() -> Own:
    """The questions and answers before."""
    template = '<section aria-label="Conversation" hidden><h2>Before</h2><ol></ol></section>'
    return Own([], html_template=template, js_on_load=asset("turns.js"), elem_id="turns")


def changes() -> Own:
    """The table of what hiding has changed."""
    return Own(None, html_template=CHANGES, js_on_load=asset("changes.js"), elem_id="changes")


def examples(given: Sequence[Example]) -> Own:
    """Buttons; a click says the number of the example."""
    buttons = [
        Markup('<button type="button" data-n="{}"><img src="{}" alt="">{}{}</button>').format(
            n, each.pictures[0], each.question, f" ({len(each.pictures)} pictures)" * (len(each.pictures) > 1)
        )
        for n, each in enumerate(given)
    ]
    template = f'<h2>Examples</h2><div class="list">{"".join(buttons)}</div>'
    return Own(None, html_template=template, js_on_load=CLICKED, elem_id="examples")
