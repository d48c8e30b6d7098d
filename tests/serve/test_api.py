"""The page's API through Gradio's Python client, and what it must not give: files, fetched addresses, other visits."""

import base64
import io
import logging
import time
import zipfile
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image
from serving import ANSWER, SAMPLE, Served, painted, raw_uri, serving, uri

from dexar_fast.errors import ModelError
from dexar_fast.serve import uploads
from dexar_fast.serve.models import EMBEDDED, Models

httpx, gradio_client = (pytest.importorskip(name, reason="comes with Gradio") for name in ("httpx", "gradio_client"))
CHOICES = ("dex-ar", "none", "", "all", False, "token", 32)
FRAME, SAID, TURNS, TEXT = range(4)


@pytest.fixture
def client(served: Served) -> Iterator[Any]:
    found = gradio_client.Client(served.url, verbose=False)
    yield found
    found.close()


def ask(client: Any, question: str = "Describe the image.", *choices: Any, pictures: Any = None) -> tuple[Any, ...]:
    shown = [{"data": uri()}] if pictures is None else pictures
    return client.predict(EMBEDDED, shown, question, *(choices or CHOICES), api_name="/ask")


def test_ask_follow_explain_hide_check_and_save(client: Any) -> None:
    found = ask(client)
    assert found[TEXT] == ANSWER and "<html" in found[FRAME]["page"] and "final" in found[FRAME]
    found = client.predict("Which shape is yellow?", *CHOICES, api_name="/follow")
    assert found[TURNS] == [["Describe the image.", ANSWER]]
    ask(client)
    said = client.predict("A green star.", *CHOICES, api_name="/explain")[1]
    assert said["text"] == "Explained by dex-ar: A green star."
    both = client.predict("A green star.", "attention", "uniform", *CHOICES[2:], api_name="/explain")
    assert both[1]["answered"] and both[1]["text"] == "Side by side: attention | uniform"
    ask(client)
    masks = {"masks": [painted((256, 256), (180, 140, 230, 190))]}
    changes = client.predict(masks, api_name="/hide")[1]
    hidden = np.argwhere(uploads.mask(changes["masks"][0]))
    assert hidden.min(0).tolist() == [140, 180] and hidden.max(0).tolist() == [189, 229]
    rows = changes["tokens"]
    assert "".join(row["text"] for row in rows).strip() == ANSWER
    assert all(0 <= row[key] <= 1 for row in rows for key in ("before", "after"))
    assert client.predict(api_name="/check")[1]["kind"] == "news"
    file, _ = client.predict(api_name="/gif")
    assert Image.open(io.BytesIO(base64.b64decode(file["data"]))).format == "GIF"


def test_the_example_of_the_api_page_runs(served: Served, client: Any) -> None:
    info = httpx.get(f"{served.url}gradio_api/info").json()["named_endpoints"]["/ask"]["parameters"]
    given = {each["parameter_name"]: each["example_input"] for each in info if not each["parameter_has_default"]}
    assert set(given) <= {"pictures", "question"}
    returned = httpx.get(f"{served.url}gradio_api/info").json()["named_endpoints"]["/ask"]["returns"]
    assert [each["label"] for each in returned] == ["report", "said", "turns", "Answer", "brush", "changes"]
    said = client.predict(**given, api_name="/ask")[SAID]
    assert said["kind"] == "news", said


def test_pieces_stream_as_differences_of_growing_states(client: Any) -> None:
    job = client.submit(EMBEDDED, [{"data": uri()}], "Describe the image.", *CHOICES, api_name="/ask")
    job.result()
    counts = [len(found[FRAME]["chips"]) for found in job.outputs() if "chips" in (found[FRAME] or {})]
    assert counts and counts == sorted(counts) and counts[-1] == 12


def test_a_visit_knows_nothing_of_another(served: Served, client: Any) -> None:
    ask(client)
    other = gradio_client.Client(served.url, verbose=False)
    said = other.predict("Which shape is yellow?", *CHOICES, api_name="/follow")[SAID]
    assert said == {"kind": "error", "text": "Nothing is answered yet: ask a question first", "answered": False}
    assert other.predict(api_name="/arrays")[1]["kind"] == "error"
    other.close()


@pytest.mark.parametrize(
    ("pictures", "says"),
    [
        ([{"data": "/etc/passwd"}], "picture 1 is no picture"),
        ([{"data": "http://127.0.0.1:1/a.png"}], "picture 1 is no picture"),
        ([{"data": raw_uri(b"<script>alert(1)</script>")}], "picture 1 is no PNG"),
        ([{"data": uri(), "seconds": float("inf")}], ""),
        ("x", "no picture yet"),
    ],
)
def test_hostile_pictures_are_refused_in_a_line(client: Any, pictures: Any, says: str) -> None:
    try:
        said = ask(client, pictures=pictures)[SAID]
    except Exception as error:  # no JSON, so that the client itself refuses it
        assert "inf" in str(pictures), error
        return
    if says:
        assert said["kind"] == "error" and says.lower() in said["text"].lower()


@pytest.mark.parametrize(
    "choices",
    [
        ("no-such-method", *CHOICES[1:]),
        (*CHOICES[:3], "no-such-set", *CHOICES[4:]),
        (*CHOICES[:6], 100_000),
        (*CHOICES[:6], 0),
        (*CHOICES[:2], "0;import os", *CHOICES[3:]),
        (*CHOICES[:5], "sentence", 32),
        (5, *CHOICES[1:]),
        ([], *CHOICES[1:]),
        ("dex-ar", {}, *CHOICES[2:]),
        (*CHOICES[:3], [], *CHOICES[4:]),
        (*CHOICES[:5], None, 32),
    ],
)
def test_choices_that_are_none_are_refused_in_a_line(client: Any, choices: tuple[Any, ...], capfd: Any) -> None:
    said = ask(client, "Describe the image.", *choices)[SAID]
    assert said["kind"] == "error" and not said["text"].startswith("A fault")
    captured = capfd.readouterr()
    assert "Traceback" not in captured.out + captured.err
    assert ask(client)[TEXT] == ANSWER


@pytest.mark.parametrize("given", [{"masks": 5}, {"masks": "x"}, {"masks": [5]}, {"masks": [uri(), uri()]}, 5, []])
def test_masks_that_are_none_are_refused_in_a_line(client: Any, given: Any) -> None:
    ask(client)
    said = client.predict(given, api_name="/hide")[0]
    assert said["kind"] == "error" and not said["text"].startswith("A fault")


def test_a_follow_up_about_other_pictures_or_by_another_model_is_refused(client: Any) -> None:
    ask(client)
    other = [{"data": uri()}, {"data": uri()}]
    said = client.predict("And now?", *CHOICES, pictures=other, api_name="/follow")[SAID]
    assert said["kind"] == "error" and said["text"].startswith("These are not the pictures of the answer")
    said = client.predict("And now?", *CHOICES, model="other", api_name="/follow")[SAID]
    assert said["kind"] == "error" and said["text"].startswith("Another model is chosen")
    same = [{"data": uri()}]
    said = client.predict("Which shape is yellow?", *CHOICES, pictures=same, model=EMBEDDED, api_name="/follow")[SAID]
    assert said["kind"] == "news"


def test_an_explanation_that_is_refused_leaves_the_one_before(client: Any) -> None:
    ask(client, "Describe the image.", "dex-ar", "attention", *CHOICES[2:])
    said = client.predict("A green star.", *CHOICES[:2], "0,99", *CHOICES[3:], api_name="/explain")[1]
    assert said["kind"] == "error" and "99" in said["text"]
    packed = zipfile.ZipFile(io.BytesIO(base64.b64decode(client.predict(api_name="/arrays")[0]["data"])))
    assert packed.namelist() == ["1-dex-ar.safetensors", "2-attention.safetensors"]
    assert client.predict(api_name="/report")[1]["kind"] == "news"


def test_of_two_methods_the_files_are_named_and_the_animation_says_whose_it_is(client: Any) -> None:
    ask(client, "Describe the image.", "dex-ar", "attention", *CHOICES[2:])
    file, _ = client.predict(api_name="/arrays")
    packed = zipfile.ZipFile(io.BytesIO(base64.b64decode(file["data"])))
    assert packed.namelist() == ["1-dex-ar.safetensors", "2-attention.safetensors"]
    assert client.predict(api_name="/gif")[1]["text"] == "Saved. It shows the first of them, “dex-ar”."
    said, *_ = client.predict(api_name="/hide_top")
    assert said["text"].startswith("Of “dex-ar”: The hottest tenth of the whole answer's map is painted. Fell most")
    assert client.predict("A green star.", *CHOICES, api_name="/explain")[2] == {}  # of the answer before


@pytest.mark.parametrize("tokens", [1e9, -1, 0, "many"])
def test_an_absurd_length_is_a_line_and_no_traceback(client: Any, tokens: Any, capfd: Any) -> None:
    said = ask(client, "Describe the image.", *CHOICES[:6], tokens)[SAID]
    assert said["kind"] == "error" and said["text"].startswith("An answer has from 1 to 128 tokens here")
    captured = capfd.readouterr()
    assert "Traceback" not in captured.out + captured.err


@pytest.mark.parametrize("path", ["/etc/passwd", "pyproject.toml", "/proc/self/environ", str(SAMPLE)])
def test_no_file_of_the_server_is_given(served: Served, path: str) -> None:
    for route in ("gradio_api/file=", "file=", "gradio_api/file/", "gradio_api//file=", "gradio_api/proxy="):
        found = httpx.get(f"{served.url}{route}{path}")
        assert found.status_code in (403, 404), (route, found.status_code)


def test_a_file_is_refused_before_gradio_looks_for_it(served: Served) -> None:
    body = {
        "data": [[{"path": "picture.png", "meta": {"_type": "gradio.FileData"}}]],
        "session_hash": "a",
        "fn_index": 0,
    }
    found = httpx.post(f"{served.url}gradio_api/queue/join", json=body)
    assert found.status_code == 403 and "fetches no address" in found.text


def test_sessions_that_asked_nothing_are_not_kept(served: Served) -> None:
    """Else whoever invents sessions pushes out those of others, whose answers are being written."""
    before = {*served.answers.visits._visits}  # those of tests before this one end meanwhile
    other = gradio_client.Client(served.url, verbose=False)
    assert other.predict(api_name="/report")[1]["kind"] == "error"
    other.close()
    direct = httpx.post(f"{served.url}gradio_api/run/report", json={"data": [], "session_hash": "invented"})
    assert direct.status_code == 404 and {*served.answers.visits._visits} <= before


def test_no_upload_is_taken_and_no_large_body(served: Served) -> None:
    assert httpx.post(f"{served.url}gradio_api/upload", files={"files": ("a.png", b"x")}).status_code == 403
    with serving(pictures=1, file_bytes=1000) as small:
        body = b"x" * 2_000_000
        assert httpx.post(f"{small.url}gradio_api/queue/join", content=body).status_code == 413
        assert httpx.get(small.url).status_code == 200


def test_a_client_that_asks_too_often_is_told_to_wait() -> None:
    with serving(a_minute=2) as slow:
        client = gradio_client.Client(slow.url, verbose=False)
        found = [ask(client)[SAID] for _ in range(3)]
        client.close()
    assert [each["kind"] for each in found] == ["news", "news", "error"]
    assert "2 requests a minute are taken" in found[2]["text"]


def test_a_model_that_failed_is_a_message_and_no_dead_page(served: Served) -> None:
    models = Models({"broken": ModelError("cannot load 'broken'"), **served.answers.models.found})
    with serving(models) as two:
        client = gradio_client.Client(two.url, verbose=False)
        shown = [{"data": uri()}]
        said = client.predict("broken", shown, "Describe the image.", *CHOICES, api_name="/ask")[SAID]
        assert said["kind"] == "error" and said["text"] == "Cannot load 'broken'"
        assert ask(client)[TEXT] == ANSWER
        client.close()


def test_a_password_is_asked_for() -> None:
    with serving(password="pässword") as shut:
        assert httpx.get(f"{shut.url}config").status_code == 401
        with pytest.raises(Exception, match=r"(?i)auth|credential|login|401"):
            gradio_client.Client(shut.url, auth=("me", "wrong"), verbose=False)
        client = gradio_client.Client(shut.url, auth=("me", "pässword"), verbose=False)
        assert ask(client)[TEXT] == ANSWER
        client.close()


def test_logs_hold_no_prompt(served: Served, client: Any, caplog: pytest.LogCaptureFixture, capfd: Any) -> None:
    caplog.set_level(logging.DEBUG)
    ask(client, "a secret question")
    ask(client, "a secret question <image>", pictures=[{"data": raw_uri(b"a secret picture")}])
    captured = capfd.readouterr()
    assert "secret" not in captured.out + captured.err
    assert not any("secret" in record.getMessage() for record in caplog.records if "dexar_fast" in record.name)


def test_a_fault_is_a_line_and_its_log_names_the_place_alone(
    served: Served, client: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    words = " ".join(["with a", "secret", "in it"])  # so that no line of this file holds it

    def fails(*_: Any) -> Any:
        raise RuntimeError(words)

    monkeypatch.setattr("dexar_fast.serve.uploads.read", fails)
    said = ask(client)[SAID]
    assert said["kind"] == "error" and said["text"].startswith("A fault of dexar-fast")
    assert "RuntimeError" in caplog.text and words not in caplog.text


@pytest.mark.parametrize("method", ["dex-ar", "igos++"])
def test_when_a_client_leaves_its_work_ends_within_a_second(served: Served, method: str, monkeypatch: Any) -> None:
    """IGOS++ takes a minute here, and the answer by DEX-AR is made endless: the model is free for the next."""
    if method == "dex-ar":
        monkeypatch.setattr("dexar_fast.serve.work.asking.written", endless)
    before = {id(visit) for visit in served.answers.visits._visits.values()}
    with httpx.Client(base_url=f"{served.url}gradio_api/", timeout=30) as leaving:
        data = [EMBEDDED, [{"data": uri()}], "Describe the image.", method, *CHOICES[1:]]
        leaving.post("queue/join", json={"data": data, "fn_index": fn_index(served, "ask"), "session_hash": method})
        with leaving.stream("GET", "queue/data", params={"session_hash": method}) as stream:
            lines = stream.iter_lines()
            until(lambda: "process_generating" in next(lines), 20)
            visit = next(v for v in served.answers.visits._visits.values() if id(v) not in before)
            assert visit.work is not None and not visit.work.join(0)
    started = time.monotonic()
    assert visit.work.join(10)
    ended = time.monotonic() - started
    monkeypatch.undo()
    other = gradio_client.Client(served.url, verbose=False)
    assert ask(other)[TEXT] == ANSWER
    other.close()
    assert ended < 2  # a second, on a machine that does other things too


def endless(base: Any, asked: Any, chunk: int) -> Iterator[Any]:
    """The pieces of one answer, again and again; not for ever, so that a failure leaves others the model."""
    until = time.monotonic() + 30
    while time.monotonic() < until:
        with base.stream(asked.given.pictures, asked.text, chunk_size=chunk) as pieces:
            for piece in pieces:
                yield piece, pieces.explanation()


def fn_index(served: Served, name: str) -> int:
    """The number by which Gradio's page asks for an event."""
    config = httpx.get(f"{served.url}config").json()
    return next(int(each["id"]) for each in config["dependencies"] if each["api_name"] == name)


def until(holds: Any, seconds: float) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)
