"""The models that the server was started with: loaded, or the reason why not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dexar_fast.errors import DexarError, InputError, ModelError, reason
from dexar_fast.explainer import Explainer

EMBEDDED = "the embedded model (coloured shapes)"


@dataclass(frozen=True)
class Models:
    """By name an Explainer, or what its loading raised; never one that a visitor names."""

    found: dict[str, Explainer | DexarError]

    @classmethod
    def load(cls, names: Sequence[str], **options: Any) -> Models:
        """Loads each in turn, the embedded one where none is named; one that fails costs itself alone.

        Args:
            options: as `Explainer.from_pretrained` takes them.
        """
        return cls({name: _loaded(name, **options) for name in names} or {EMBEDDED: _loaded(None, **options)})

    @property
    def names(self) -> list[str]:
        """In the order in which they were named."""
        return list(self.found)

    @property
    def labels(self) -> list[str]:
        """The names, and which of them failed to load."""
        broken = {name for name, found in self.found.items() if isinstance(found, DexarError)}
        return [f"{name} (failed to load)" if name in broken else name for name in self.found]

    @property
    def first(self) -> str:
        """The name of the first that was loaded; of the first, where none was."""
        return next((name for name, found in self.found.items() if isinstance(found, Explainer)), self.names[0])

    @property
    def failures(self) -> list[DexarError]:
        """What the loading of those raised that cannot be served."""
        return [found for found in self.found.values() if isinstance(found, DexarError)]

    def of(self, name: Any) -> Explainer:
        """The explainer of a model. Raises InputError for one that is not served, or what its loading raised."""
        if name not in self.names:
            raise InputError(f"this server does not serve that model: it has {', '.join(self.names)}")
        found = self.found[name]
        if isinstance(found, Explainer):
            return found
        raise ModelError(str(found))


def _loaded(name: str | None, **options: Any) -> Explainer | DexarError:
    try:
        return Explainer.from_pretrained(name, **options)
    except DexarError as error:
        return error
    except ImportError as error:
        return ModelError(f"{name or 'the embedded model'} needs a library that does not import: {reason(error)}")
