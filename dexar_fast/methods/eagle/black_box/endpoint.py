"""A model behind an OpenAI-compatible server, as `explain_black_box` takes it."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, Literal
from urllib.parse import urlsplit

from PIL import Image

from dexar_fast.errors import InputError, ModelError
from dexar_fast.methods.eagle.black_box.pace import Pace
from dexar_fast.methods.eagle.black_box.sending import Sender
from dexar_fast.methods.eagle.black_box.servers import SERVERS, Row
from dexar_fast.vision.images import load_image


class Endpoint:
    """The probabilities of a given answer, told by a server of vLLM or SGLang.

    A request that fails for the moment (a connection refused or dropped, no byte within `timeout`, HTTP 408, 425, 429
    or 5xx, broken JSON) is sent again: when the server says (`Retry-After`), else after 0.5 s, doubled each time.

    Args:
        url: of the server: "http://localhost:8000"; a "/v1" at its end does not count.
        model: its name there.
        server: "vllm" is asked by /v1/chat/completions; its prompt is the user's text. "sglang" is asked by /generate;
            its prompt is the whole text up to the answer, as the model's chat template writes it, the image's token
            included.
        key: of the API. timeout: seconds. attempts: for each request, the first included.
        rate: the most requests a second, all threads and attempts together; None is no limit.
    Raises:
        InputError: a value outside its range.
    """

    def __init__(
        self,
        url: str,
        model: str,
        server: Literal["vllm", "sglang"] = "vllm",
        *,
        key: str | None = None,
        timeout: float = 120.0,
        attempts: int = 6,
        rate: float | None = None,
    ) -> None:
        if server not in SERVERS:
            raise InputError(f"server is one of {', '.join(map(repr, SERVERS))}, not {server!r}")
        for name, value in {"timeout": timeout, "rate": 1 if rate is None else rate}.items():
            if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
                raise InputError(f"{name} is a number of seconds or requests above 0, not {value!r}")
        if isinstance(attempts, bool) or not isinstance(attempts, int) or attempts < 1:
            raise InputError(f"attempts is a whole number of at least 1, not {attempts!r}")
        self.model = model
        self._server = SERVERS[server]
        self._sender = Sender(_checked(url), key, timeout, attempts, Pace(rate))

    def __call__(self, picture: Image.Image, prompt: str, tokens: list[str]) -> list[float]:
        """The probabilities of the T tokens of an answer, [T].

        Raises:
            InputError: the server refuses the request, or cuts the answer into other tokens.
            ModelError: it does not answer, or not with log-probabilities.
        """
        rows = self._rows(picture, prompt, "".join(tokens))[-len(tokens) :]
        if [row.text.strip() for row in rows] != [token.strip() for token in tokens]:
            raise InputError(
                f"the server cuts the answer into other tokens, at its end {[row.text for row in rows]}: give those of "
                "Endpoint.tokens()"
            )
        return [_known(row) for row in rows]

    def tokens(self, image: Any, prompt: str, answer: str) -> list[str]:
        """The texts of the tokens into which the server cuts an answer.

        A character that is spread over several tokens has no text in them: such an answer is refused.

        Raises:
            InputError: an empty answer, or the prompt does not end with it as the server writes it. Else as a call.
        """
        if not answer.strip():
            raise InputError("the answer is empty: give some text")
        rows, found = self._rows(load_image(image), prompt, answer), ""
        for count, row in enumerate(reversed(rows), 1):
            found = row.text + found
            if found.strip() == answer.strip():
                return [row.text for row in rows[-count:]]
        raise InputError(f"what the server was asked does not end with {answer!r}: it ends with {found[-80:]!r}")

    def _rows(self, picture: Image.Image, prompt: str, answer: str) -> list[Row]:
        answered = self._sender.post(self._server.path, self._server.body(self.model, picture, prompt, answer))
        try:
            return self._server.rows(answered)
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise ModelError(f"the server answers without the prompt's log-probabilities: {answered!s:.300}") from error


def _checked(url: Any) -> str:
    """Without "/v1" at its end. Raises InputError for what is no address of a server."""
    with suppress(ValueError, TypeError, AttributeError):
        parts = urlsplit(url)
        if parts.scheme in ("http", "https") and parts.hostname and parts.port != 0:
            return url.rstrip("/").removesuffix("/v1")
    raise InputError(f"url must be like http://localhost:8000, not {url!r}")


def _known(row: Row) -> float:
    if row.probability is None:
        raise ModelError(f"the server tells no log-probability of {row.text!r}")
    return row.probability
