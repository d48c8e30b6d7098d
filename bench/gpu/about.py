"""What the machine is, as JSON: asked in a process of its own, which leaves nothing on the GPU."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from bench.load import load_average


def asked() -> dict[str, Any]:
    """What `found` finds, in a process of its own."""
    told = subprocess.run([sys.executable, "-m", "bench.gpu.about"], stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(told.stdout.splitlines()[-1])


def found() -> dict[str, Any]:
    """The machine, its GPU and the driver of that, versions, the commit, and the load before anything began."""
    import torch

    from bench import machine
    from dexar_fast.backends.verdicts.machine import machine as judged

    cards = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return {
        "machine": machine.facts(),
        "card": judged("cuda:0") if cards else None,
        "cards": cards,
        "capability": torch.cuda.get_device_capability() if cards else None,
        "versions": machine.versions(),
        "commit": machine.commit(),
        "load": load_average(),
    }


if __name__ == "__main__":
    print(json.dumps(found()))
