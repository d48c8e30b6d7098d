"""Libraries that only some readers need, imported on use."""

from importlib import import_module
from typing import Any

from dexar_fast.errors import LibraryError, reason


def library(module: str, what: str) -> Any:
    """A module.

    Raises:
        LibraryError: it is not installed; the message says what needs it, and how to install it.
    """
    package = module.partition(".")[0]
    try:
        return import_module(module)
    except ImportError as error:
        raise LibraryError(f"{what} needs {package} ({reason(error)}): pip install {package}") from error
