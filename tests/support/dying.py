"""What dies in the middle: a data set whose picture kills the process that opens it, once; an actor of this process."""

import os
import re
import signal
import time
from functools import partial
from pathlib import Path

from PIL import Image

from dexar_fast.data import DataSet, Item

COUNT, DEADLY = 8, 5


def data(marker: Path) -> DataSet:
    return DataSet("dying", list(range(COUNT)), partial(_item, str(marker)), str)


def _item(marker: str, name: str, record: int) -> Item:
    return Item(name, partial(opened, marker, record), "What is it?")


def opened(marker: str, record: int) -> Image.Image:
    """A grey picture."""
    if record == DEADLY and not os.path.exists(marker):
        Path(marker).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return Image.new("L", (32, 32), 30 * record).convert("RGB")


def kill_an_actor(name: str, seconds: float = 60.0) -> int:
    """Kills the first process below this one that Ray calls so, as soon as there is one; returns its id."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            pid = int(path.parent.name)
            if name in _read(path) and os.getpid() in _parents(pid):
                os.kill(pid, signal.SIGKILL)
                return pid
        time.sleep(0.05)
    raise TimeoutError(f"no actor {name}")


def _parents(pid: int) -> list[int]:
    found = []
    while pid > 1:
        match = re.search(r"^PPid:\s+(\d+)", _read(Path(f"/proc/{pid}/status")), re.M)
        pid = int(match[1]) if match else 0
        found.append(pid)
    return found


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:  # it has ended
        return ""
