"""A server that fails on purpose: what is sent again, when, and what is told of it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from answering_server import PROMPT, TOKENS, Server, picture, probabilities, serving

from dexar_fast import InputError, ModelError
from dexar_fast.methods.eagle.black_box import Endpoint, pace, sending
from dexar_fast.methods.eagle.black_box.pace import Pace

KINDS = ["vllm", "sglang"]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "*")
    with serving() as running:
        yield running


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that were waited between attempts, without waiting; a clock that only they move."""
    waited: list[float] = []
    clock = SimpleNamespace(sleep=waited.append, monotonic=lambda: 1000 + sum(waited))
    monkeypatch.setattr(sending, "time", clock)
    monkeypatch.setattr(pace, "time", clock)
    monkeypatch.setattr(sending.random, "uniform", lambda low, high: high)
    return waited


def endpoint(server: Server, kind: str = "vllm", **options: Any) -> Endpoint:
    return Endpoint(server.url, "a-model", kind, **{"timeout": 30.0} | options)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", KINDS)
def test_a_server_tells_the_answers_probabilities(server: Server, kind: str) -> None:
    image = picture()
    found = endpoint(server, kind)(image, PROMPT, TOKENS)
    np.testing.assert_allclose(found, probabilities(image), rtol=1e-12)
    assert endpoint(server, kind).tokens(image, PROMPT, " A red circle.") == TOKENS


def test_vllm_is_asked_for_an_unfinished_answer(server: Server) -> None:
    endpoint(server, key="secret")(picture(), PROMPT, TOKENS)
    (path, headers, body), *others = server.seen
    assert not others and path == "/v1/chat/completions" and headers["Authorization"] == "Bearer secret"
    user, assistant = body["messages"]
    assert assistant == {"role": "assistant", "content": " A red circle."}
    assert user["content"][1] == {"type": "text", "text": PROMPT}
    assert body["continue_final_message"] is True and body["add_generation_prompt"] is False
    assert body["prompt_logprobs"] == 1 and body["model"] == "a-model"


def test_sglang_is_asked_for_a_whole_prompt(server: Server) -> None:
    Endpoint(server.url + "/v1/", "a-model", "sglang")(picture(), "USER: <image>\nASSISTANT:", TOKENS)
    (path, headers, body), *others = server.seen
    assert not others and path == "/generate" and "Authorization" not in headers
    assert body["text"] == "USER: <image>\nASSISTANT: A red circle."
    assert body["sampling_params"]["max_new_tokens"] == 0
    assert body["return_logprob"] and body["return_text_in_logprobs"] and body["logprob_start_len"] == 0


@pytest.mark.parametrize("fault", [408, 425, 429, 500, 502, 503, 504, "drop", "cut", "garbage"])
def test_what_fails_for_the_moment_is_sent_again(server: Server, waits: list[float], fault: Any) -> None:
    server.faults = [fault, fault, fault]
    image = picture()
    np.testing.assert_allclose(endpoint(server)(image, PROMPT, TOKENS), probabilities(image), rtol=1e-12)
    assert len(server.seen) == 4
    assert [wait for wait in waits if wait] == [0.5, 1.0, 2.0]


def test_a_server_that_is_too_slow_is_asked_again(server: Server, waits: list[float]) -> None:
    server.faults = ["slow"]
    found = endpoint(server, timeout=0.3)(picture(), PROMPT, TOKENS)
    assert len(found) == 4 and len(server.seen) == 2


@pytest.mark.parametrize("says", ["7", "7.0", "date"])
def test_the_server_says_when_to_come_again(server: Server, waits: list[float], says: str) -> None:
    after = format_datetime(datetime.now(UTC) + timedelta(seconds=7), usegmt=True) if says == "date" else says
    server.faults = [(429, {"Retry-After": after})]
    endpoint(server)(picture(), PROMPT, TOKENS)
    (waited,) = [wait for wait in waits if wait]
    assert 5 <= waited <= 7.01


@pytest.mark.parametrize("header", ["", "soon", "-3"])
def test_a_retry_after_that_says_nothing(server: Server, waits: list[float], header: str) -> None:
    server.faults = [(503, {"Retry-After": header})]
    endpoint(server)(picture(), PROMPT, TOKENS)
    assert [wait for wait in waits if wait] == ([] if header == "-3" else [0.5])


def test_a_day_is_too_long_to_wait(server: Server, waits: list[float]) -> None:
    server.faults = [(429, {"Retry-After": "86400"})]
    with pytest.raises(ModelError, match=r"asks to wait 86400 s .HTTP 429.*same record"):
        endpoint(server)(picture(), PROMPT, TOKENS)
    assert not any(waits)


def test_it_gives_up_and_says_what_happened_last(server: Server, waits: list[float]) -> None:
    server.faults = [500, "drop", 503, None]
    with pytest.raises(ModelError, match=r"failed at each of 3 attempts, at last: HTTP 503: .*on purpose"):
        endpoint(server, attempts=3)(picture(), PROMPT, TOKENS)
    assert len(server.seen) == 3 and [wait for wait in waits if wait] == [0.5, 1.0]


def test_nobody_listens(server: Server, waits: list[float]) -> None:
    url = server.url
    server.server_close()
    with pytest.raises(ModelError, match="2 attempts, at last: URLError"):
        Endpoint(url, "a-model", attempts=2)(picture(), PROMPT, TOKENS)


@pytest.mark.parametrize("status", [400, 401, 404, 413, 422])
def test_what_the_server_refuses_is_not_sent_again(server: Server, waits: list[float], status: int) -> None:
    server.faults = [status]
    with pytest.raises(InputError, match=f"HTTP {status}.*on purpose"):
        endpoint(server)(picture(), PROMPT, TOKENS)
    assert len(server.seen) == 1 and not any(waits)


@pytest.mark.parametrize("status", [301, 302, 307])
def test_the_key_goes_to_no_other_server(server: Server, status: int) -> None:
    with serving() as other:
        server.faults = [(status, {"Location": other.url + "/v1/chat/completions"})]
        with pytest.raises(InputError, match=f"HTTP {status}"):
            endpoint(server, key="secret")(picture(), PROMPT, TOKENS)
        assert other.seen == []


@pytest.mark.parametrize("answered", ["[]", "{}", "3", "null", '{"prompt_logprobs": null}', '{"prompt_logprobs": [3]}'])
def test_a_server_without_log_probabilities(server: Server, monkeypatch: pytest.MonkeyPatch, answered: str) -> None:
    monkeypatch.setattr(server.RequestHandlerClass, "answer", lambda *_: json.loads(answered))
    with pytest.raises(ModelError, match="answers without the prompt's log-probabilities"):
        endpoint(server)(picture(), PROMPT, TOKENS)
    with pytest.raises(ModelError, match="answers without the prompt's log-probabilities"):
        endpoint(server, "sglang")(picture(), PROMPT, TOKENS)


@pytest.mark.parametrize("kind", KINDS)
def test_the_servers_tokens_are_others(server: Server, kind: str) -> None:
    with pytest.raises(InputError, match=r"other tokens, at its end \[' circle', '.'\]: give those of Endpoint.tokens"):
        endpoint(server, kind)(picture(), PROMPT, [" A red", " circle."])
    with pytest.raises(InputError, match=r"does not end with 'A blue circle\.'"):
        endpoint(server, kind).tokens(picture(), PROMPT, "A blue circle.")


def test_an_empty_answer_is_not_sent(server: Server) -> None:
    with pytest.raises(InputError, match="the answer is empty"):
        endpoint(server).tokens(picture(), PROMPT, " \n")
    assert server.seen == []


def test_the_first_token_of_a_prompt_has_no_probability(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = {"meta_info": {"input_token_logprobs": [[None, 5, "A"]]}}
    monkeypatch.setattr(server.RequestHandlerClass, "answer", lambda *_: rows)
    with pytest.raises(ModelError, match="tells no log-probability of 'A'"):
        endpoint(server, "sglang")(picture(), PROMPT, ["A"])


def test_requests_keep_their_pace(waits: list[float]) -> None:
    steady = Pace(4)
    for _ in range(5):
        steady.wait()
    assert waits == pytest.approx([0, 0.25, 0.25, 0.25, 0.25])
    steady.hold(3)
    steady.wait()
    assert waits[-1] == pytest.approx(3)
    free = Pace(None)
    free.wait()
    free.wait()
    assert waits[-2:] == [0, 0]


def test_every_attempt_keeps_the_pace(server: Server, waits: list[float]) -> None:
    server.faults = [500, 500]
    endpoint(server, rate=0.1)(picture(), PROMPT, TOKENS)
    assert waits == pytest.approx([0, 0.5, 9.5, 1.0, 9.0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"url": "localhost:8000"}, "url must be like http://localhost:8000"),
        ({"url": "file:///etc/passwd"}, "url must be like"),
        ({"url": "http://"}, "url must be like"),
        ({"url": "http://localhost:port"}, "url must be like"),
        ({"url": None}, "url must be like"),
        ({"server": "ollama"}, "server is one of 'vllm', 'sglang'"),
        ({"timeout": 0}, "timeout is a number of seconds or requests above 0"),
        ({"rate": -1}, "rate is a number"),
        ({"rate": float("nan")}, "rate is a number"),
        ({"attempts": 0}, "attempts is a whole number of at least 1"),
        ({"attempts": 2.5}, "attempts is a whole number"),
    ],
)
def test_options_that_mean_nothing(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Endpoint(**{"url": "http://localhost:8000", "model": "a-model"} | options)


def test_the_clock_of_these_tests_is_not_that_of_the_others() -> None:
    assert sending.time is time and pace.time is time
