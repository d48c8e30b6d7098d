"""`dexar-fast serve`: what it loads, how it listens, and what it says where it cannot."""

import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command_line import run

pytest.importorskip("gradio", reason="the page needs Gradio: pip install gradio")

from serving import free_port

from dexar_fast.serve import server
from dexar_fast.serve.limits import Limits
from dexar_fast.serve.models import EMBEDDED

Launched = Callable[[], tuple[Any, ...]]


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> Launched:
    """What the server was started with, which does not start."""
    found: list[tuple[Any, ...]] = []

    def start(*given: Any) -> str:
        found.append(given)
        return "http://here/"

    monkeypatch.setattr(server, "start", start)
    monkeypatch.setattr(server, "wait", lambda blocks: None)
    monkeypatch.setattr("dexar_fast.cli.loading._end_silently", lambda: None)

    def last() -> tuple[Any, ...]:
        assert len(found) == 1
        return found[0]

    return last


def test_it_serves_the_embedded_model_at_this_machine_alone(launched: Launched) -> None:
    result = run("serve")
    assert result.exit_code == 0, result.stderr
    blocks, limits, host, port, password = launched()
    assert (host, port, password) == ("127.0.0.1", None, None) and limits == Limits()
    assert EMBEDDED in str(blocks.config)
    assert "anyone" not in result.stderr and "the page is at http://here/ until Ctrl-C" in result.stderr


def test_options_are_limits_and_a_password_comes_from_the_environment(
    launched: Launched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEXAR_FAST_PASSWORD", "secret")
    more = ["--pictures", "2", "--megabytes", "1", "--megapixels", "3", "--seconds", "7", "--rate", "9"]
    result = run("serve", "--host", "0.0.0.0", "--port", "8123", "--max-new-tokens", "5", *more)
    assert result.exit_code == 0, result.stderr
    _, limits, host, port, password = launched()
    assert (host, port, password) == ("0.0.0.0", 8123, "secret")
    expected = {"pictures": 2, "file_bytes": 2**20, "pixels": 3 * 2**20, "tokens": 5, "seconds": 7, "a_minute": 9}
    assert limits == Limits(**expected)
    assert "secret" not in result.stderr + result.stdout


def test_an_open_door_is_said(launched: Launched) -> None:
    assert (
        "anyone who reaches 0.0.0.0 may use the page: --password asks for one"
        in run("serve", "--host", "0.0.0.0").stderr
    )


def test_where_it_cannot_listen_is_said_in_a_line() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        result = run("serve", "--port", str(port))
        assert result.exit_code == 2
        expected = f"cannot listen at 127.0.0.1, port {port}: Address already in use: name another --host or --port"
        assert result.stderr.splitlines()[-1] == f"dexar-fast: {expected}"
    result = run("serve", "--host", "no.such.host.invalid")
    assert result.exit_code == 2 and "cannot listen at no.such.host.invalid: " in result.stderr.splitlines()[-1]


def test_an_empty_password_is_none() -> None:
    result = run("serve", "--password", "")
    assert result.exit_code == 2 and "an empty password keeps nobody out" in result.stderr


def test_other_machines_are_told_the_port(launched: Launched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "start", lambda *given: "http://localhost:8123/")
    assert "of this one, port 8123" in run("serve", "--host", "0.0.0.0", "--password", "x").stderr


def test_a_model_that_fails_is_said_and_the_others_are_served(launched: Launched, tmp_path: Path) -> None:
    embedded = Path(server.__file__).parents[1] / "assets" / "shapes-llava"
    result = run("serve", "--model", str(tmp_path / "none"), "--model", str(embedded))
    assert result.exit_code == 0 and "none" in result.stderr
    assert str(embedded) in str(launched()[0].config)


def test_without_any_model_it_ends_with_a_line(tmp_path: Path) -> None:
    result = run("serve", "--model", str(tmp_path / "none"))
    assert result.exit_code == 2
    assert result.stderr.splitlines()[-1] == "dexar-fast: no model is left to serve"


def test_without_gradio_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    result = run("serve")
    assert result.exit_code == 2
    assert result.stderr.splitlines()[-1] == "dexar-fast: the page needs Gradio: pip install 'dexar-fast[serve]'"


def test_ctrl_c_ends_it_with_its_status(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server itself starts, on a free port; the wait for Ctrl-C ends at once."""

    def interrupted(self: Any, timeout: Any = None) -> bool:
        raise KeyboardInterrupt

    started: list[str] = []
    begin = server.start
    monkeypatch.setattr(server, "start", lambda *given: started.append(begin(*given)) or started[0])
    monkeypatch.setattr(server, "Event", lambda: type("Never", (), {"wait": interrupted})())
    monkeypatch.setattr("dexar_fast.cli.loading._end_silently", lambda: None)
    result = run("serve", "--port", str(free_port()))
    assert result.exit_code == 130
    with socket.socket() as asked:
        port = int(started[0].rstrip("/").rpartition(":")[2])
        assert asked.connect_ex(("127.0.0.1", port)) != 0  # it is closed
