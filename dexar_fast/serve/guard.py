"""What stands before Gradio: requests of a limited size, no files, no addresses to fetch, headers for browsers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

# Of Gradio's routes these take or give files, or fetch what an address names: this page needs none of them.
SHUT = ("upload", "file=", "file/", "proxy=", "stream/", "stream_input", "vibe", "deep_link", "runs", "monitoring")
HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
)


class TooLarge(Exception):
    """A body beyond the limit that did not announce it. FastAPI answers with 400."""


class Guard:
    """ASGI middleware.

    Args:
        most: bytes of a request's body.
    """

    def __init__(self, app: App, most: int) -> None:
        self._app = app
        self._most = most

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
        elif _is_shut(scope["path"]):
            await _refuse(send, 403, b"this page serves no files")
        elif _announced(scope) > self._most:
            await _refuse(send, 413, b"the request is too large: send fewer or smaller pictures")
        else:
            await self._limited(scope, receive, send)

    async def _limited(self, scope: Message, receive: Receive, send: Send) -> None:
        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *HEADERS]
            await send(message)

        await self._app(scope, self._counted(receive), sent)

    def _counted(self, receive: Receive) -> Receive:
        read = 0

        async def counted() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > self._most:
                raise TooLarge
            return message

        return counted


def _is_shut(path: str) -> bool:
    """Whether a path is one of a shut route, at the root or under gradio_api/."""
    rest = path.lstrip("/").removeprefix("gradio_api/")
    return rest.startswith(SHUT)


def _announced(scope: Message) -> int:
    """How many bytes the body of a request has, as its header says."""
    length = dict(scope["headers"]).get(b"content-length", b"0")
    return int(length) if length.isdigit() else 0


async def _refuse(send: Send, status: int, why: bytes) -> None:
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": why})
