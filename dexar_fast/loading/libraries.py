"""Libraries that some models and processors ask for: how to tell that one is missing, and how to install it."""

import re
import sys

import torch

CPU_INDEX = "https://download.pytorch.org/whl/cpu"
_MISSING = re.compile(r"\binstall(ed)?\b|not found in your environment|No module named|torchvision")
_NAMED = re.compile(r"requires the ([\w.-]+) library|No module named '([\w-]+)")
_RESTART = re.compile(r"\s*Please note that you may need to restart your runtime after installation\.")


def vision() -> str:
    """The command that installs torchvision in the build that fits the torch here."""
    cpu_build = sys.platform == "linux" and torch.version.cuda is None and torch.version.hip is None
    return "pip install 'dexar-fast[vision]'" + (f" --extra-index-url {CPU_INDEX}" if cpu_build else "")


def missing(error: BaseException) -> str | None:
    """What an error says of a library that is not there, in one line with the command; None for another error."""
    said = " ".join(_RESTART.sub("", str(error)).replace("```", " ").split())
    if not isinstance(error, ImportError) and not _MISSING.search(said):
        return None
    if "torchvision" in said.lower():
        return f"{said.rstrip('.')}: {vision()}"
    named = _NAMED.search(said)
    if named is None or "pip install" in said:
        return said
    return f"{said.rstrip('.')}: pip install {(named[1] or named[2]).lower()}"
