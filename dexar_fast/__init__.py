"""Explains, token by token, what a vision-language model looked at while it wrote (DEX-AR, arXiv 2603.06302)."""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dexar_fast.errors import (
    BackendError,
    DexarError,
    ExtensionError,
    FileError,
    ImageError,
    InputError,
    InternalError,
    LibraryError,
    ModelError,
    NumericalError,
    OutOfMemoryError,
)

if TYPE_CHECKING:
    from dexar_fast.explainer import Explainer
    from dexar_fast.explanation import Explanation
    from dexar_fast.kvcache.pool import KVPool
    from dexar_fast.report.page.document import compare_html

__version__ = "0.1.0"

__all__ = [
    "BackendError",
    "DexarError",
    "Explainer",
    "Explanation",
    "ExtensionError",
    "FileError",
    "ImageError",
    "InputError",
    "InternalError",
    "KVPool",
    "LibraryError",
    "ModelError",
    "NumericalError",
    "OutOfMemoryError",
    "compare_html",
]

_LATE = {
    "Explainer": "dexar_fast.explainer",
    "Explanation": "dexar_fast.explanation",
    "KVPool": "dexar_fast.kvcache.pool",
    "compare_html": "dexar_fast.report.page.document",
}

_checkout = Path(__file__).resolve().parent.parent
if (_checkout / "kernels").is_dir() and (_checkout / "setup.py").is_file():
    __path__.append(str(_checkout))  # dexar_fast.kernels lies in kernels/: another package is called `kernels`


def __getattr__(name: str) -> Any:
    """Imports torch and transformers when a class is first asked for: `dexar-fast --help` needs neither."""
    if name not in _LATE:
        raise AttributeError(f"module 'dexar_fast' has no attribute {name!r}")
    return getattr(import_module(_LATE[name]), name)


def __dir__() -> list[str]:
    """The public names, those that are imported late among them."""
    return sorted({*__all__, *(name for name in globals() if name.startswith("__"))})
