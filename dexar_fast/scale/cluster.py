"""Ray as this package needs it: quiet, one actor a GPU."""

from __future__ import annotations

import logging
import os
from typing import Any

from dexar_fast.data.libraries import library
from dexar_fast.errors import InputError

QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_BACKEND_LOG_LEVEL": "fatal"}


def ray() -> Any:
    """Ray, connected: as it is, or to the cluster that RAY_ADDRESS names, or else to one on this machine alone.

    Raises LibraryError: it is not installed.
    """
    found = library("ray", "the engine Ray")
    library("ray.data", "the engine Ray")
    if not found.is_initialized():
        for name, value in QUIET.items():
            os.environ.setdefault(name, value)
        found.init(include_dashboard=False, logging_level="error", log_to_driver=False)
        found.data.DataContext.get_current().enable_progress_bars = False
        logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # what it logs it also raises
    return found


def pool(found: Any, actors: int | None) -> dict[str, Any]:
    """The arguments of map_batches for so many actors, each with a GPU where there are any.

    Args:
        actors: None is one for each GPU, or one.
    Raises:
        InputError: not a positive number.
    """
    gpus = int(found.cluster_resources().get("GPU", 0))
    size = actors if actors is not None else max(1, gpus)
    if size < 1:
        raise InputError(f"actors is a positive number, not {actors}")
    return {"compute": found.data.ActorPoolStrategy(size=size), "num_gpus": 1 if gpus else 0}
