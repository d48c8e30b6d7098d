"""Captum's LLM attribution over this engine: its call, its ImageMaskInput, its LLMAttributionResult with its plots.

    from dexar_fast.adapters.captum import LLMAttribution      # was: from captum.attr import LLMAttribution

An `Explainer` stands in the place of Captum's method over a model: `LLMAttribution(FeatureAblation(model), tokenizer)`
becomes `LLMAttribution(Explainer(model, processor, method="attention-gradient"), tokenizer)`. The value of a feature is
the sum of the map over its pixels. A method that hides regions hides the features themselves, by its own `fill` and not
by the input's `baseline`; Captum's perturbation methods run so, too: `method="captum:method=FeatureAblation"`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dexar_fast.data.libraries import library
from dexar_fast.errors import InputError
from dexar_fast.explainer import Explainer
from dexar_fast.explanation import Explanation
from dexar_fast.methods.eagle.black_box.endpoint import Endpoint
from dexar_fast.report.placing import check_geometry
from dexar_fast.vision.grid import Grid, Size
from dexar_fast.vision.sampling import places

EXTRA = "'dexar-fast[captum]'"
HOW = ("show_progress", "perturbations_per_eval")  # arguments of Captum's methods that change no result
GENERATED = {"max_new_tokens": 25, "do_sample": False}  # as Captum generates where no target is given


class LLMAttribution:
    """Attributes an answer about a picture to its segments, by any of our methods.

    Args:
        attr_method: an Explainer with a processor; its method says how.
        tokenizer: cuts a target that is a text; None takes that of the processor.
    Raises:
        InputError: no Explainer, or no tokenizer. LibraryError: Captum is not installed.
    """

    def __init__(self, attr_method: Explainer, tokenizer: Any = None) -> None:
        if not isinstance(attr_method, Explainer):
            raise InputError(
                f"attr_method is an Explainer, whose method explains, not a {type(attr_method).__name__}: Captum's own "
                'run by Explainer(..., method="captum:method=FeatureAblation")'
            )
        self.attr_method = attr_method
        self.tokenizer: Any = tokenizer or getattr(attr_method.processor, "tokenizer", None)
        if self.tokenizer is None:
            raise InputError("no tokenizer: pass it, or an Explainer with the model's processor")
        self._attr = library("captum.attr", "LLMAttribution", EXTRA)

    def attribute(
        self,
        inp: Any,
        target: str | Tensor | None = None,
        num_trials: int = 1,
        gen_args: Mapping[str, Any] | None = None,
        use_cached_outputs: bool = True,
        _inspect_forward: None = None,
        forward_in_tokens: bool = True,
        **kwargs: Any,
    ) -> Any:
        """A `captum.attr.LLMAttributionResult` of T tokens and F segments: seq_attr [F], token_attr [T, F], float32.

        Args:
            inp: an ImageMaskInput; what its processor_fn makes of the picture is the prompt.
            target: the answer, or its ids [T]; None generates it.
            gen_args: of generate(), where there is no target.
            num_trials, use_cached_outputs, forward_in_tokens: Captum's; one pass answers for all of them, as a trial of
                our methods is like another: what they draw goes by their seed.
            kwargs: Captum's for how its method runs (`show_progress`, `perturbations_per_eval`), of no use here.
        Raises:
            InputError: an input of another kind, gen_args beside a target, an argument of Captum's method that the
                Explainer's takes itself, a picture whose map has no place in it; else as `Explainer.explain_inputs`.
        """
        _check(_inspect_forward, kwargs)
        if not isinstance(inp, self._attr.ImageMaskInput):
            raise InputError(f"inp is an ImageMaskInput, whose segments have maps, not a {type(inp).__name__}")
        if target is not None and gen_args is not None:
            raise InputError("gen_args are for an answer that is generated: leave them out where there is a target")
        arguments = {} if target is not None else dict(gen_args or GENERATED)
        explainer = _over_segments(self.attr_method, inp)
        explanation = explainer.explain_inputs(_prompted(inp), self._ids(target), images=inp.image, **arguments)
        self.attr_method.decoder = explainer.decoder
        return self._result(explanation, inp)

    def _ids(self, target: str | Tensor | None) -> Any:
        return self.tokenizer.encode(target, add_special_tokens=False) if isinstance(target, str) else target

    def _result(self, explanation: Explanation, inp: Any) -> Any:
        check_geometry(explanation)
        shares = torch.from_numpy(_shares(explanation, inp.get_mask_list()))
        return self._attr.LLMAttributionResult(
            input_tokens=inp.values,
            output_tokens=[token.replace("\n", "\\n").strip() for token in explanation.tokens],
            seq_attr=(shares @ explanation.sequence_map.double()).float(),
            token_attr=(explanation.token_maps.double() @ shares.T).float(),
            inp=inp,
        )


class LLMGradientAttribution(LLMAttribution):
    """The same by Captum's shorter call; the Explainer's method takes gradients or not."""

    def attribute(  # type: ignore[override]
        self,
        inp: Any,
        target: str | Tensor | None = None,
        gen_args: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> Any:
        """As `LLMAttribution.attribute`."""
        return super().attribute(inp, target, gen_args=gen_args, **kwargs)


def endpoint(provider: Any) -> Endpoint:
    """The server of a Captum VLLMProvider as `methods.eagle.black_box.explain_black_box` asks it.

    The provider's own `get_logprobs` sends text alone; pictures go through the server's chat.

    Raises:
        InputError: no VLLMProvider.
    """
    kind = library("captum.attr", "a VLLMProvider", EXTRA).VLLMProvider
    if not isinstance(provider, kind):
        raise InputError(f"a VLLMProvider is due, not a {type(provider).__name__}")
    return Endpoint(provider.api_url, provider.model_name, "vllm", key=provider.client.api_key)


def _check(inspect: object, kwargs: Mapping[str, Any]) -> None:
    if inspect is not None:
        raise InputError("_inspect_forward: no forward of Captum's runs here, leave it out")
    if knobs := [name for name in kwargs if name not in HOW]:
        raise InputError(
            f"{', '.join(knobs)}: knobs are those of the Explainer's method, as in Explainer(..., "
            'method="captum:method=ShapleyValueSampling,n_samples=25")'
        )


def _prompted(inp: Any) -> dict[str, Any]:
    if not isinstance(inp.original_model_inputs, Mapping):
        made = type(inp.original_model_inputs).__name__
        raise InputError(f"processor_fn makes a {made} of the picture: it must return what the processor does")
    return dict(inp.original_model_inputs)


def _over_segments(explainer: Explainer, inp: Any) -> Explainer:
    """With the segments as regions, where the method hides regions and the segments part the picture."""
    method: Any = explainer.method
    cut = getattr(method, "labels", None) is None and hasattr(method, "labels")
    if not cut or inp.mask_list or inp.n_itp_features == 1:
        return explainer
    return explainer.with_method(replace(method, labels=inp.mask.cpu().numpy()))


def _shares(explanation: Explanation, masks: list[Tensor]) -> NDArray[np.float64]:
    """[F, N]: which share of the pixels of each of the N values lies in each of F segments."""
    (width, height), count = explanation.images[0].size, explanation.token_maps.shape[1]
    if masks[0].shape != (height, width):
        raise InputError(
            f"segments of {[*masks[0].shape]} pixels do not part a picture that the model sees as {[height, width]}: "
            "turn it as its EXIF says first"
        )
    fine = _points(explanation, (width, height))
    points = Grid(0, 0, height * fine, width * fine)
    values = places([points], points.rows * points.columns, explanation.grids, [(width, height)])

    def of(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
        return np.bincount(values[mask & (values >= 0)], minlength=count)

    areas = of(np.ones(values.shape, bool)).clip(1)
    finer = [mask.cpu().bool().numpy().repeat(fine, 0).repeat(fine, 1) for mask in masks]
    return np.stack([of(mask.ravel()) / areas for mask in finer])


def _points(explanation: Explanation, size: Size) -> int:
    """How many points to a pixel's side find each cell, though the picture may have fewer pixels than cells."""
    boxes = [(cells, cells.box or (0.0, 0.0, *size)) for cells in explanation.grids]
    of_pixels = [
        max(cells.rows / (bottom - top), cells.columns / (right - left)) for cells, (left, top, right, bottom) in boxes
    ]
    return max(1, math.ceil(max(of_pixels)))
