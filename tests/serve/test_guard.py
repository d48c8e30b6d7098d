"""What stands before Gradio: sizes, open routes, no files, headers."""

import asyncio
import json
from typing import Any

import pytest

from dexar_fast.serve.guard import Guard, names_a_file

MOST = 100
JOIN = "/gradio_api/queue/join"
FILE = {"path": "picture.png", "meta": {"_type": "a kind of file"}}


class Asked:
    """One request to a guard before an app that reads the whole body."""

    def __init__(self, path: str, chunks: list[bytes], headers: list[tuple[bytes, bytes]] | None = None) -> None:
        self.chunks, self.sent, self.read, self.reached = list(chunks), [], b"", False
        scope = {"type": "http", "path": path, "headers": headers or []}
        asyncio.run(Guard(self.app, MOST)(scope, self.receive, self.send))

    async def receive(self) -> dict[str, Any]:
        if not self.chunks:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": self.chunks.pop(0), "more_body": bool(self.chunks)}

    async def send(self, message: Any) -> None:
        self.sent.append(message)

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        self.reached = True
        while (message := await receive())["more_body"]:
            self.read += message["body"]
        self.read += message["body"]
        assert (await receive())["type"] == "http.disconnect"
        await send({"type": "http.response.start", "status": 200, "headers": [(b"a", b"b")]})

    @property
    def refused(self) -> int:
        """The status of a refusal; 0 where the app was reached."""
        return 0 if self.reached else self.sent[0]["status"]


def test_a_body_within_the_limit_comes_through_whole() -> None:
    asked = Asked(JOIN, [b"1" * 40, b"2" * 60])
    assert asked.read == b"1" * 40 + b"2" * 60 and asked.sent[0]["status"] == 200
    assert (b"x-content-type-options", b"nosniff") in asked.sent[0]["headers"]
    assert (b"a", b"b") in asked.sent[0]["headers"]


def test_a_body_beyond_it_is_not_read_on() -> None:
    asked = Asked(JOIN, [b"1" * 40, b"2" * 61, b"never read"])
    assert asked.refused == 413 and asked.chunks == [b"never read"]


def test_a_body_that_announces_too_much_is_refused_unread() -> None:
    asked = Asked(JOIN, [b"x" * 101], [(b"content-length", b"101")])
    assert asked.refused == 413 and len(asked.chunks) == 1


@pytest.mark.parametrize("path", ["/gradio_api/upload", "/upload", "/gradio_api/file=/etc/passwd", "//file=x", "//x",
                                  "/gradio_api/proxy=http://x", "/gradio_api/runs", "/monitoring/x", "/gradio_api",
                                  "/gradio_api/process_recording", "/gradio_api/undo-vibe-edit", "/gradio_api//queue",
                                  "/gradio_api/component_server", "/gradio_api/stream/x", "/of_a_later_release",
                                  "/gradio_api/run-history/records"])  # fmt: skip
def test_other_routes_never_reach_gradio(path: str) -> None:
    asked = Asked(path, [b""])
    assert asked.refused == 403 and asked.chunks == [b""]


@pytest.mark.parametrize("path", ["/", "/config", "/gradio_api/queue/data", "/assets/index.js", "/theme.css",
                                  "/gradio_api/call/ask", "/gradio_api/heartbeat/x", "/login"])  # fmt: skip
def test_those_of_the_page_do(path: str) -> None:
    assert Asked(path, [b""]).reached


@pytest.mark.parametrize("body", [FILE, {"data": [FILE]}, {"data": ["Ask", [{"data": FILE}]]}, [[{"x": FILE, "y": 1}]]])
def test_a_body_that_names_a_file_never_reaches_gradio(body: Any) -> None:
    """Gradio would look for it, or fetch it, before any code of the page sees it."""
    asked = Asked(JOIN, [json.dumps(body).encode()])
    assert asked.refused == 403 and b"fetches no address" in asked.sent[1]["body"]


def test_keys_are_seen_however_they_are_written() -> None:
    assert names_a_file(rb'{"data": [{"p\u0061th": "x", "\u006deta": {}}]}')


@pytest.mark.parametrize("body", [{"path": "x"}, {"meta": {}}, {"data": "path meta"}, [], 5, None, "x"])
def test_other_bodies_do(body: Any) -> None:
    assert Asked(JOIN, [json.dumps(body).encode()]).reached


def test_what_is_no_json_is_left_to_gradio() -> None:
    assert Asked("/login", [b"username=me&password=path"]).reached
