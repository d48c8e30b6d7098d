"""Children of a process that are killed at random times."""

import os
import random
import signal
import time
from collections.abc import Callable

LONGEST = 0.5  # seconds until a kill


def killed(work: Callable[[int], None]) -> int:
    """Kills a child that runs `work`; gives the number that it wrote before, as a line, into what `work` is given."""
    told, tell = os.pipe()
    child = os.fork()
    if not child:
        work(tell)
        os._exit(0)
    number = int(os.read(told, 20))
    time.sleep(random.random() * LONGEST)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return number
