"""All modules of a model, walked in a fraction of the time that torch's own modules() takes."""

from __future__ import annotations

from torch import nn


def below(module: nn.Module) -> list[nn.Module]:
    """A module and all modules inside it, each once: those of modules(), but level by level."""
    found, known = [module], {module}
    for each in found:
        for child in each._modules.values():
            if child is not None and child not in known:
                known.add(child)
                found.append(child)
    return found
