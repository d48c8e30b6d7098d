"""What stands before Gradio: sizes, shut routes, headers."""

import asyncio
from typing import Any

import pytest

from dexar_fast.serve.guard import Guard, TooLarge


class Asked:
    """One request to a guard before an app that reads the whole body."""

    def __init__(self, path: str, chunks: list[bytes], headers: list[tuple[bytes, bytes]] | None = None) -> None:
        self.chunks, self.sent, self.read = list(chunks), [], b""
        scope = {"type": "http", "path": path, "headers": headers or []}
        asyncio.run(Guard(self.app, 10)(scope, self.receive, self.send))

    async def receive(self) -> dict[str, Any]:
        return {"type": "http.request", "body": self.chunks.pop(0), "more_body": bool(self.chunks)}

    async def send(self, message: Any) -> None:
        self.sent.append(message)

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        while (message := await receive())["more_body"]:
            self.read += message["body"]
        self.read += message["body"]
        await send({"type": "http.response.start", "status": 200, "headers": [(b"a", b"b")]})


def test_a_body_within_the_limit_comes_through_whole() -> None:
    asked = Asked("/gradio_api/queue/join", [b"12345", b"67890"])
    assert asked.read == b"1234567890" and asked.sent[0]["status"] == 200
    assert (b"x-content-type-options", b"nosniff") in asked.sent[0]["headers"]
    assert (b"a", b"b") in asked.sent[0]["headers"]


def test_a_body_beyond_it_is_not_read_on() -> None:
    with pytest.raises(TooLarge):
        Asked("/gradio_api/queue/join", [b"12345", b"678901", b"never read"])


def test_a_body_that_announces_too_much_is_refused_unread() -> None:
    asked = Asked("/gradio_api/queue/join", [b"x" * 11], [(b"content-length", b"11")])
    assert asked.sent[0]["status"] == 413 and asked.read == b""


@pytest.mark.parametrize("path", ["/gradio_api/upload", "/upload", "/gradio_api/file=/etc/passwd", "//file=x",
                                  "/gradio_api/proxy=http://x", "/gradio_api/runs", "/monitoring/x"])  # fmt: skip
def test_shut_routes_never_reach_gradio(path: str) -> None:
    asked = Asked(path, [b""])
    assert asked.sent[0]["status"] == 403 and asked.chunks == [b""]


@pytest.mark.parametrize("path", ["/", "/config", "/gradio_api/queue/data", "/assets/index.js", "/theme.css"])
def test_the_others_do(path: str) -> None:
    assert Asked(path, [b""]).sent[0]["status"] == 200
