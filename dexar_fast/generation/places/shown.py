"""Models that are shown other pictures than those of a request, and what they then hold of each visual token."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any
from weakref import WeakKeyDictionary

from PIL import Image
from torch import Tensor, nn

from dexar_fast.generation.setup import Setup
from dexar_fast.model.decoder import Decoder
from dexar_fast.model.elsewhere.values import reader, values
from dexar_fast.model.prefill import BegunPrompt
from dexar_fast.prompt.remade.pixels import Pixels
from dexar_fast.prompt.request import Request
from dexar_fast.vision.measured.entering import entering, layers
from dexar_fast.vision.measured.skipping import Blocks
from dexar_fast.vision.measured.unmixed import Unmixed

_towers: WeakKeyDictionary[nn.Module, Blocks] = WeakKeyDictionary()


class Shown(ABC):
    """A model on loan and a request's pictures.

    Attributes:
        layers: where what it holds of the pictures may be read, in order.
        sizes: of the pictures. stills: how many of them, the first, are no frames of a video.
    """

    layers: Iterable[nn.Module]

    def __init__(self, setup: Setup, request: Request, images: list[Image.Image], decoder: nn.ModuleList) -> None:
        self.model, self.inputs = setup.model, request.inputs
        self._pixels = Pixels(setup.processor, request.inputs, images)
        self.sizes, self.stills = [image.size for image in images], len(images) - self._pixels.frames
        if self.model not in _towers:
            _towers[self.model] = Blocks(self.model, decoder)

    def wholly(self, layer: nn.Module, images: list[Image.Image]) -> Tensor:
        """[N, d] through the whole tower, with no token reading another."""
        made = {name: value.to(self.inputs[name].device) for name, value in self._pixels.of(images).items()}
        return self.read(layer, {**self.inputs, **made})

    def quickly(self, layer: nn.Module, images: list[Image.Image]) -> Tensor:
        """The same without the blocks of the tower."""
        with _towers[self.model].left_out():
            return self.wholly(layer, images)

    @abstractmethod
    def read(self, layer: nn.Module, inputs: dict[str, Any]) -> Tensor:
        """[N, d] of inputs with other pixels."""


class AmongIds(Shown):
    """A model that reads its image among the prompt's ids, at these positions [N]."""

    def __init__(self, setup: Setup, request: Request, images: list[Image.Image], positions: Tensor) -> None:
        self.layers = layers(setup.model)
        super().__init__(setup, request, images, self.layers)
        self._positions = positions

    def read(self, layer: nn.Module, inputs: dict[str, Any]) -> Tensor:
        return entering(self.model, layer, inputs, self._positions)


class Elsewhere(Shown):
    """A model that reads it elsewhere, of a prompt that has begun."""

    def __init__(
        self, setup: Setup, request: Request, images: list[Image.Image], decoder: Decoder, begun: BegunPrompt
    ) -> None:
        module, self._keys = reader(decoder, begun)
        self.layers, self._decoder = [module], decoder
        super().__init__(setup, request, images, nn.ModuleList(decoder.layers))

    def read(self, layer: nn.Module, inputs: dict[str, Any]) -> Tensor:
        with Unmixed():
            return values(self.model, inputs, self._decoder, layer, self._keys)
