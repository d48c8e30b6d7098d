"""Libraries that only some rooms need, imported on use."""

from importlib import import_module
from typing import Any

from dexar_fast.errors import LibraryError, reason


def library(module: str, what: str, install: str | None = None) -> Any:
    """A module.

    Args:
        what: needs it. install: what pip installs, where that is not the package of this name.

    Raises:
        LibraryError: it is not installed; the message says what needs it, and how to install it.
    """
    package = module.partition(".")[0]
    try:
        return import_module(module)
    except ImportError as error:
        raise LibraryError(f"{what} needs {package} ({reason(error)}): pip install {install or package}") from error
