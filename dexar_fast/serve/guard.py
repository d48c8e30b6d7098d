"""What stands before Gradio: the routes that the page needs, bodies of a limited size that name no file, headers."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from starlette.concurrency import run_in_threadpool

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

# Of Gradio's routes, by their first part, those of the page and of its API. The others take or give files, fetch what
# an address names, or are of no use here; so is what a later Gradio adds.
PAGE = {"config", "login", "logout", "assets", "static", "svelte", "theme.css", "favicon.ico", "robots.txt"}
API = {
    "info", "openapi.json", "startup-events", "heartbeat", "queue", "call", "run", "api", "cancel", "reset",
    "login_check", "user", "token", "app_id", "theme.css",
}  # fmt: skip
FILE = {"path", "meta"}  # the keys by which Gradio knows a file; it fetches one that is an address
HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
)
NO_ROUTE = b"this page has no such route: it takes no upload and gives no file"
NO_FILE = b"this page takes no file and fetches no address: send pictures as data:image/png;base64,..."
TOO_LARGE = b"the request is too large: send fewer or smaller pictures"


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
        elif not _is_open(scope["path"]):
            await _refuse(send, 403, NO_ROUTE)
        elif _announced(scope) > self._most:
            await _refuse(send, 413, TOO_LARGE)
        else:
            await self._read(scope, receive, send)

    async def _read(self, scope: Message, receive: Receive, send: Send) -> None:
        body = await self._body(receive)
        if body is None:
            await _refuse(send, 413, TOO_LARGE)
        elif await run_in_threadpool(names_a_file, body):
            await _refuse(send, 403, NO_FILE)
        else:
            await self._app(scope, _again(body, receive), _with_headers(send))

    async def _body(self, receive: Receive) -> bytes | None:
        """Of a request; None where it is larger than it may be."""
        parts, read = [], 0
        while True:
            message = await receive()
            parts.append(message.get("body", b""))
            read += len(parts[-1])
            if read > self._most:
                return None
            if not message.get("more_body"):
                return b"".join(parts)


def _is_open(path: str) -> bool:
    first, _, rest = path.removeprefix("/").partition("/")
    return rest.partition("/")[0] in API if first == "gradio_api" else first in PAGE or path == "/"


def _announced(scope: Message) -> int:
    """How many bytes the body of a request has, as its header says."""
    length = dict(scope["headers"]).get(b"content-length", b"0")
    return int(length) if length.isdigit() else 0


def names_a_file(body: bytes) -> bool:
    """Whether JSON holds what Gradio takes for a file; JSON that is nested too deep counts as such."""
    try:
        left = [json.loads(body)]
    except RecursionError:
        return True
    except ValueError:
        return False
    while left:
        each = left.pop()
        if isinstance(each, dict):
            if each.keys() >= FILE:
                return True
            left.extend(each.values())
        elif isinstance(each, list):
            left.extend(each)
    return False


def _again(body: bytes, receive: Receive) -> Receive:
    """Gives a body that was read once more, then what comes behind it."""
    first: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> Message:
        return first.pop() if first else await receive()

    return again


def _with_headers(send: Send) -> Send:
    async def sent(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", ()), *HEADERS]
        await send(message)

    return sent


async def _refuse(send: Send, status: int, why: bytes) -> None:
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": why})
