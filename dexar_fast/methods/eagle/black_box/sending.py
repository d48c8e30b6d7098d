"""Sends JSON to a server, and again where it fails for the moment."""

from __future__ import annotations

import json
import random
import time
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError
from urllib.request import HTTPRedirectHandler, Request, build_opener

from dexar_fast.errors import InputError, ModelError, reason
from dexar_fast.methods.eagle.black_box.pace import Pace

FOR_THE_MOMENT = (408, 425, 429, 500, 502, 503, 504)
FIRST_WAIT, LONGEST_WAIT = 0.5, 60.0  # seconds; doubled from one attempt to the next
MOST_BYTES = 2**26  # of an answer: bounds the memory that reading it takes
SHOWN = 300  # characters of what a server says


class Busy(Exception):
    """The server fails for the moment; after `seconds`, where it tells them."""

    def __init__(self, said: str, seconds: float | None = None) -> None:
        super().__init__(said)
        self.seconds = seconds


class _Stay(HTTPRedirectHandler):
    """Follows no redirection: the key is for one server."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


class Sender:
    """Sends requests to one server.

    Args:
        url: of the server. key: of its API; None sends none. timeout: seconds without a byte. attempts: for each
            request, the first included. pace: shared by all threads.
    """

    def __init__(self, url: str, key: str | None, timeout: float, attempts: int, pace: Pace) -> None:
        self._url = url
        self._headers = {"Content-Type": "application/json"} | (
            {} if key is None else {"Authorization": f"Bearer {key}"}
        )
        self._timeout = timeout
        self._attempts = attempts
        self._pace = pace
        self._opener = build_opener(_Stay())

    def post(self, path: str, body: dict[str, Any]) -> Any:
        """The JSON that the server answers.

        Raises:
            InputError: the server refuses the request. ModelError: it failed at every attempt.
        """
        request = Request(self._url + path, json.dumps(body).encode(), self._headers)
        said = ""
        for attempt in range(self._attempts):
            self._pace.wait()
            try:
                return self._answer(request)
            except Busy as busy:
                said = str(busy)
                if attempt + 1 < self._attempts:
                    self._rest(busy, attempt)
        raise ModelError(f"{self._url}{path} failed at each of {self._attempts} attempts, at last: {said}")

    def _rest(self, busy: Busy, attempt: int) -> None:
        """As long as the server says; else twice as long each time, and not all threads for the same time."""
        if busy.seconds is None:
            time.sleep(min(LONGEST_WAIT, FIRST_WAIT * 2**attempt) * random.uniform(0.5, 1))
        elif busy.seconds <= LONGEST_WAIT:
            self._pace.hold(busy.seconds)
        else:
            raise ModelError(
                f"{self._url} asks to wait {busy.seconds:.0f} s ({busy}): go on later, with the same record"
            )

    def _answer(self, request: Request) -> Any:
        try:
            with self._opener.open(request, timeout=self._timeout) as response:
                data = response.read(MOST_BYTES + 1)
        except HTTPError as error:
            with error:
                raise self._judged(error, _text(error)) from error
        except (OSError, HTTPException) as error:  # refused, dropped, too slow
            raise Busy(f"{type(error).__name__}: {reason(error)}") from error
        if len(data) > MOST_BYTES:
            raise ModelError(f"{self._url} answers with more than {MOST_BYTES} bytes")
        try:
            return json.loads(data)
        except (ValueError, RecursionError) as error:
            raise Busy(f"what it answers is no JSON: {data[:SHOWN]!r}") from error

    def _judged(self, error: HTTPError, said: str) -> Exception:
        if error.code in FOR_THE_MOMENT:
            return Busy(f"HTTP {error.code}: {said}", _seconds(error.headers.get("Retry-After")))
        return InputError(f"{self._url} refuses the request (HTTP {error.code}): {said}")


def _text(error: HTTPError) -> str:
    try:
        return error.read(SHOWN).decode("utf-8", "replace").strip()
    except (OSError, HTTPException):
        return ""


def _seconds(header: str | None) -> float | None:
    """What Retry-After says, seconds or a date; None where it says neither."""
    try:
        return max(0.0, float(header or ""))
    except ValueError:
        pass
    try:
        return max(0.0, (parsedate_to_datetime(header or "") - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return None
