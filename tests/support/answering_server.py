"""A server that tells log-probabilities as vLLM and SGLang do, and fails on purpose."""

from __future__ import annotations

import base64
import io
import json
import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
from PIL import Image

PROMPT = "What is it?"
TOKENS = [" A", " red", " circle", "."]
SLOW = 1.0  # seconds


def probabilities(picture: Image.Image, prompt: str = PROMPT, tokens: list[str] | None = None) -> list[float]:
    """Of the four tokens: each by the brightness of one column of the picture, and a little by that of all of it."""
    values = np.asarray(picture, np.float64).mean((0, 2)) / 255
    columns = np.array_split(values, len(TOKENS))
    return [float(0.05 + 0.6 * column.mean() + 0.3 * values.mean() ** 2) for column in columns]


def picture(seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (24, 32, 3), np.uint8))


class Server(ThreadingHTTPServer):
    """Attributes:
    faults: what the next requests meet, one each: a status, (status, headers), "drop", "cut", "garbage", "slow", None.
    seen: (path, headers, body) of each request.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.faults: list[Any] = []
        self.seen: list[tuple[str, dict[str, str], Any]] = []
        self.lock = threading.Lock()
        self.cut = list(TOKENS)  # the tokens that answers are cut into

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, *_: Any) -> None:
        """A client that has gone is no news."""


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.seen.append((self.path, dict(self.headers), body))
            fault = self.server.faults.pop(0) if self.server.faults else None
        status, headers = fault if isinstance(fault, tuple) else (fault if isinstance(fault, int) else 200, {})
        if fault == "drop":
            self.connection.close()
            return
        if fault == "slow":
            time.sleep(SLOW)
        data = json.dumps(self.answer(body) if status == 200 else {"error": "on purpose"}).encode()
        sent = data[: len(data) // 2] if fault in ("cut", "garbage") else data
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(sent if fault == "garbage" else data))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(sent)

    def answer(self, body: Any) -> Any:
        if self.path == "/generate":
            image, logprobs = body["image_data"], self.logprobs(body["image_data"])
            rows = [[None, 1, "<s>"], [-0.5, 32000, "<image>"], [-3.0, 7, "?"]]
            rows += [[value, 9, text.replace(" ", "\u2581")] for text, value in logprobs]
            return {"text": "", "meta_info": {"prompt_tokens": len(rows), "input_token_logprobs": rows}}
        image = body["messages"][0]["content"][0]["image_url"]["url"]
        entries: list[Any] = [None, {"7": {"logprob": -3.0, "rank": 12, "decoded_token": "?"}}]
        for text, value in self.logprobs(image):
            likeliest = {"5": {"logprob": -0.01, "rank": 1, "decoded_token": " the"}}
            entries.append({"9": {"logprob": value, "rank": 2, "decoded_token": text}} | likeliest)
        return {"choices": [{"message": {"content": "!"}}], "prompt_logprobs": entries}

    def logprobs(self, image: str) -> list[tuple[str, float]]:
        with Image.open(io.BytesIO(base64.b64decode(image.split(",")[1]))) as shown:
            values = probabilities(shown.convert("RGB"))
        return [(text, math.log(value)) for text, value in zip(self.server.cut, values, strict=True)]

    def log_message(self, *_: Any) -> None:
        """Nothing on stderr."""


@contextmanager
def serving() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
