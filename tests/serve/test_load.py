"""Eight visitors for a minute: no error, everyone in turn, memory flat."""

import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from served_clients import Asker, httpx
from serving import free_port, uri

from dexar_fast.serve.models import EMBEDDED

CLIENTS, SECONDS = 8, 60
GROWTH = 40  # MiB that the allocator may still take after the first third


@pytest.fixture
def server() -> Iterator[tuple[str, int]]:
    """The command itself, in a process of its own: its address and its number."""
    port = free_port()
    command = [sys.executable, "-m", "dexar_fast", "serve", "--port", str(port), "--rate", "100000"]
    running = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}/"
    try:
        _wait(url, running)
        yield url, running.pid
    finally:
        running.terminate()
        running.wait(30)


def _wait(url: str, running: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + 120
    while True:
        try:
            if httpx.get(url, timeout=5).status_code == 200:
                return
        except httpx.TransportError:
            pass
        assert running.poll() is None and time.monotonic() < end
        time.sleep(0.2)


def _resident(process: int) -> float:
    """MiB."""
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{process}/status").read_text())
    assert found
    return int(found[1]) / 1024


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="reads memory from /proc")
def test_eight_visitors_for_a_minute(server: tuple[str, int]) -> None:
    url, process = server
    end = time.monotonic() + SECONDS
    askers = [Asker(url, f"visitor{n}", EMBEDDED, uri()) for n in range(CLIENTS)]
    threads = [threading.Thread(target=asker.ask_until, args=(end,)) for asker in askers]
    for thread in threads:
        thread.start()
    time.sleep(SECONDS / 3)
    early = _resident(process)
    for thread in threads:
        thread.join()
    late, counts = _resident(process), [len(asker.ended) for asker in askers]
    print(f"answers {counts}, resident {early:.0f} then {late:.0f} MiB")
    assert [failure for asker in askers for failure in asker.failures] == []
    assert min(counts) > 0 and max(counts) - min(counts) <= 2  # whoever asks goes to the end of one queue
    assert late - early < GROWTH
