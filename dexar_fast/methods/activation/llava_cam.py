"""LLaVA-CAM: Grad-CAM on what a decoder layer's MLP reads, at the visual tokens (RuoyuChen10/EAGLE, baselines)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from dexar_fast.attribution.gradients import checked, leads_back
from dexar_fast.errors import InputError, ModelError
from dexar_fast.methods import knobs
from dexar_fast.methods.activation.mlp_input import MlpInput
from dexar_fast.methods.base import Asked, Maps
from dexar_fast.model.decoder import Decoder
from dexar_fast.model.lending.frozen import frozen
from dexar_fast.model.teacher_forcing import head_inputs
from dexar_fast.model.wanted import check_wanted
from dexar_fast.settings import layer_of

DEPTH = 0.4  # of the layer that is used unless one is named: 13 of LLaVA-1.5's 32

_NOTES = (
    "Map value of a patch, from 0 to 1: Grad-CAM on what one layer's MLP reads at the patch, divided by the highest of "
    "the map. Values of different tokens do not compare.",
    "Map of the whole answer: the same for the sum of the tokens' logits, not the sum of their maps.",
    "What other positions took from a patch before that layer does not show.",
)


@dataclass(frozen=True)
class LlavaCam:
    """relu(mean over channels of A w), divided by its maximum; w = mean over the visual tokens of relu(G).

    A [N, d] is the output of the norm behind a layer's attention, at the visual tokens, and G [N, d] the gradient of a
    token's own logit with respect to it. The sequence map takes the sum of the logits. One forward serves all tokens;
    each has a backward of its own, from the top down to the layer.

    Attributes:
        layer: counted among those that hold attention, negative from the end; None is that at 40 % of the depth. The
            last is refused: behind its attention, no visual token reaches a logit.
        samples: more than 1 is SmoothGrad: the mean over so many copies of the image with noise.
        noise: its standard deviation, as a share of the range of the processed pixels. Theirs is added before the
            processor, which averages it where it shrinks the image.
        seed: of the noise.
    Raises:
        InputError: a layer that is no whole number, no samples, noise below 0, or a seed that is none.
    """

    name: ClassVar[str] = "llava-cam"
    contrasts: ClassVar[bool] = True
    layer: int | None = None
    samples: int = 1
    noise: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        if self.layer is not None:
            knobs.index("layer", self.layer)
        knobs.whole("samples", self.samples, 1)
        knobs.real("noise", self.noise)
        knobs.seed(self.seed)

    def maps(self, asked: Asked) -> Maps:
        """Token maps [T, N] in [0, 1], float32: 0 where nothing speaks for the token."""
        layer = self._layer_of(asked.decoder)
        sums = [_cams(asked, inputs, layer) for inputs in self._copies(asked.inputs)]
        found = torch.stack(sums).mean(0)
        return Maps(found[:-1], found[-1], asked.grids, notes=_NOTES, diagnostics={"layer": layer})

    def _layer_of(self, decoder: Decoder) -> int:
        count = len(decoder.layers)
        usual = max(0, min(round(DEPTH * count), count - 2))
        chosen = usual if self.layer is None else layer_of(int(self.layer), count)
        if chosen == count - 1:
            raise InputError(
                f"layer {chosen} is the last: behind its attention no visual token reaches a logit, so it has no "
                "gradient; choose one before it"
            )
        return chosen

    def _copies(self, inputs: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
        """The inputs, or copies of them with other noise in the pixels."""
        if self.samples == 1:
            yield inputs
            return
        generator = torch.Generator().manual_seed(int(self.seed))
        for _ in range(self.samples):
            yield {name: self._noisy(x, generator) if "pixel" in name else x for name, x in inputs.items()}

    def _noisy(self, pixels: Tensor, generator: torch.Generator) -> Tensor:
        if not pixels.is_floating_point():  # a mask
            return pixels
        noise = torch.randn(pixels.shape, generator=generator).to(pixels)
        return pixels + float(self.noise) * (pixels.max() - pixels.min()) * noise


def _cams(asked: Asked, inputs: Mapping[str, Any], layer: int) -> Tensor:
    """The maps of the T tokens, and that of the sum of their logits, [T + 1, N]."""
    read, logits = _recorded(asked, inputs, layer)
    at = asked.visual.to(read.device)
    activations = read.detach()[0, at].float()
    total, maps = torch.zeros_like(activations), []
    for logit in logits:
        check_wanted()
        gradient = torch.autograd.grad(logit, read, retain_graph=True)[0][0, at].float()
        maps.append(_cam(activations, gradient))
        total += gradient
    return torch.stack([*maps, _cam(activations, total)]).cpu()


def _recorded(asked: Asked, inputs: Mapping[str, Any], layer: int) -> tuple[Tensor, Tensor]:
    """What the layer's MLP reads [1, P.., d], and the logits [T] that autograd leads back to it. Raises ModelError."""
    decoder, targets = asked.decoder, asked.targets
    watched = MlpInput(decoder.layers[layer], decoder.attentions[layer])
    with torch.enable_grad(), frozen(asked.model), watched.hooked(), checked(decoder.layers[layer:]):
        normed = head_inputs(asked.model, inputs, targets[:-1], decoder, asked.visual)
        logits = decoder.lens.difference(normed[:, -len(targets) :], targets, asked.against)
    if not leads_back(logits, watched.activations):
        raise ModelError(f"no gradient leads from the logits back to layer {layer}: it cannot be explained")
    return watched.activations, logits


def _cam(activations: Tensor, gradient: Tensor) -> Tensor:
    """The map [N] from A and G [N, d]."""
    found = (activations * gradient.relu().mean(0)).mean(1).relu()
    return found / found.max().clamp_min(torch.finfo(found.dtype).tiny)
