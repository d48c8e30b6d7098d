"""Clients of the page of `dexar-fast serve` that speak HTTP alone, as its own script in a browser does."""

import json
import time
from dataclasses import dataclass, field
from typing import Any

import pytest

httpx = pytest.importorskip("httpx", reason="comes with Gradio")
CHOICES = ("dex-ar", "none", "", "all", False, "token", 32)


@dataclass
class Asker:
    """One visitor, who asks one question after another and notes how each ended, and when."""

    url: str
    name: str
    model: str
    picture: str
    failures: list[str] = field(default_factory=list)
    ended: list[float] = field(default_factory=list)

    def ask_until(self, end: float) -> None:
        """Asks until a moment of `time.monotonic()`."""
        config = httpx.get(f"{self.url}config", timeout=60).json()
        ask = next(each["id"] for each in config["dependencies"] if each["api_name"] == "ask")
        with httpx.Client(base_url=f"{self.url}gradio_api/", timeout=120) as client:
            while time.monotonic() < end:
                self._ask(client, ask)

    def _ask(self, client: Any, ask: int) -> None:
        data = [self.model, [{"data": self.picture}], "Describe the image.", *CHOICES]
        body = {"data": data, "fn_index": ask, "session_hash": self.name}
        joined = client.post("queue/join", json=body)
        if joined.status_code != 200:
            self.failures.append(joined.text)
            return
        with client.stream("GET", "queue/data", params={"session_hash": self.name}) as lines:
            last = [told for told in map(_message, lines.iter_lines()) if told.get("msg") == "process_completed"]
        self.ended.append(time.monotonic())
        if not last or not last[-1]["success"] or "Answered: A red triangle" not in json.dumps(last[-1]["output"]):
            self.failures.append(json.dumps(last)[:300])


def _message(line: str) -> dict[str, Any]:
    return json.loads(line.removeprefix("data: ")) if line.startswith("data: ") else {}
