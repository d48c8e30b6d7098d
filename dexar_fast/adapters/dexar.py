"""The interface of the DEX-AR authors' package over this engine: their scripts run with one import changed.

    from dexar_fast.adapters.dexar import DexarWrapper, visualize, visualize_multi      # was: from dexar import ...

Names, arguments, fields, shapes and values are those of github WalBouss/DEX-AR at cb8899b. Not the same:
the model's flags, config and attention stay as they are; any image size and any single grid will do; sums are
taken in float32 or better; where no gradient is positive, maps are zeros (theirs NaN); pictures use colours
that colour-blind readers can tell apart, and no token's name leads out of the folder they are saved in.
"""

import io
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from dexar_fast.errors import FileError, ImageError, InputError
from dexar_fast.explainer import Explainer
from dexar_fast.explanation import Explanation
from dexar_fast.files import write_atomically
from dexar_fast.report.drawing.colours import COLOUR_MAP
from dexar_fast.report.drawing.titles import printable
from dexar_fast.report.placing import single_grid
from dexar_fast.results.assembly import each_scaled

Panel = tuple[NDArray[np.uint8], str]

_COLUMNS = 8
_PANEL_INCHES = 3.0


@dataclass
class DexarResult:
    """Maps of an answer of T tokens, float32 (float64 for a float64 model) on the device of the model.

    Every map is min-max normalised on its own; a constant map is all zeros.

    Attributes:
        per_token_heatmaps: [T, H, W], Eq. 5.
        per_token_heatmaps_unfiltered: [T, H, W], the plain sum over layers and heads.
        token_weights: [T], delta of Eq. 6, not normalised.
        sentence_heatmap: [H, W], Eq. 6.
        sentence_heatmap_unfiltered: [H, W], the plain sum over tokens, layers and heads.
        tokens: each token decoded on its own.
    """

    per_token_heatmaps: Tensor
    per_token_heatmaps_unfiltered: Tensor
    token_weights: Tensor
    sentence_heatmap: Tensor
    sentence_heatmap_unfiltered: Tensor
    tokens: list[str]


class DexarWrapper:
    """Explains given answers of a model whose image is one grid of visual tokens (LLaVA-1.5, BakLLaVA).

    Args:
        model: a LlavaForConditionalGeneration, or any model that `Explainer` takes.
        processor: its processor.
        layer_index: first layer used; negative counts from the end, and stops at the first layer.
    """

    def __init__(self, model: Any, processor: Any, layer_index: int = -10) -> None:
        self.model = model
        self.processor = processor
        self.layer_index = layer_index

    @classmethod
    def from_pretrained(cls, model_name: str, device: str = "cuda", layer_index: int = -10) -> "DexarWrapper":
        """Load a model in float16, and its processor, by name or from a folder."""
        loaded = Explainer.from_pretrained(model_name, device=device, dtype="float16")
        return cls(loaded.model, loaded.processor, layer_index)

    def compute_dexar(
        self,
        image: Image.Image,
        target_sentence: str,
        prompt: str = "USER: <image>\nDescribe the image. ASSISTANT:",
    ) -> DexarResult:
        """Explain `target_sentence` as the answer to `prompt`, in mode "official" (METHOD.md section 4).

        Args:
            target_sentence: tokenised on its own, as in their package, not as the continuation of the prompt.
            prompt: used unchanged; holds the model's image token once.

        Raises:
            InputError: no image token or several, an empty answer, or an image that is not one grid.
        """
        _check_picture(image)
        for name, text in {"prompt": prompt, "target_sentence": target_sentence}.items():
            if not isinstance(text, str):
                raise InputError(f"{name} must be a str, not a {type(text).__name__}")
        token = getattr(self.processor, "image_token", None)
        if token is None:
            raise InputError("processor must be the model's own for images and text, as AutoProcessor loads it")
        if prompt.count(token) != 1:
            raise InputError(f"the prompt holds {prompt.count(token)} image tokens {token!r}: write one for the image")
        inputs = self.processor(text=prompt, images=image, return_tensors="pt")
        targets = self.processor.tokenizer.encode(target_sentence, add_special_tokens=False)
        explainer = Explainer(self.model, self.processor, mode="official", layer_index=self.layer_index)
        explanation = explainer.explain_inputs(inputs, targets)
        return _result(explanation, self.processor.tokenizer, self.model.device)


def _result(explanation: Explanation, tokenizer: Any, device: torch.device) -> DexarResult:
    grid = single_grid(explanation)

    def shown(raw: Tensor) -> Tensor:
        return each_scaled(raw).reshape(*raw.shape[:-1], grid.rows, grid.columns).to(device)

    return DexarResult(
        per_token_heatmaps=shown(explanation.token_maps),
        per_token_heatmaps_unfiltered=shown(explanation.unfiltered_token_maps),
        token_weights=explanation.token_weights.to(device),
        sentence_heatmap=shown(explanation.sequence_map),
        sentence_heatmap_unfiltered=shown(explanation.unfiltered_sequence_map),
        tokens=[tokenizer.decode([token]) for token in explanation.token_ids.tolist()],
    )


def visualize(
    image: Image.Image,
    heatmap: Tensor,
    alpha: float = 0.6,
    title: str | None = None,
    save_path: str | os.PathLike[str] | None = None,
) -> None:
    """Show an image, resized to the map, under a map [H, W] in [0, 1].

    Args:
        alpha: share of the map's colour in every pixel.
        title: written above the picture.
        save_path: also write the figure there; PNG where the name has no extension.

    Raises:
        InputError: a map of another shape. FileError: a path that cannot be written.
    """
    with _figure([(_blend(image, heatmap, alpha), str(title or ""))]) as figure:
        if save_path is not None:
            _save(figure, _with_extension(save_path))
        plt.show()


def visualize_multi(
    image: Image.Image,
    heatmaps: Tensor,
    tokens: Sequence[str] | None = None,
    alpha: float = 0.6,
    save_path: str | os.PathLike[str] | None = None,
) -> None:
    """Show an image, and beside it the image under each of its maps [T, H, W] in [0, 1].

    Args:
        tokens: titles of the maps, T of them; their numbers by default.
        alpha: share of the map's colour in every pixel.
        save_path: also write the figure there, and each map's picture beside it, `<stem>_<token><extension>`
            (tokens that read alike share a file: the last one stays).

    Raises:
        InputError: maps of another shape, or not one token a map. FileError: a path that cannot be written.
    """
    heatmaps = _checked(heatmaps, 3, "to visualize_multi [T, H, W]")
    titles = range(len(heatmaps)) if tokens is None else tokens
    if not isinstance(titles, Sequence) or len(titles) != len(heatmaps):
        given = len(titles) if isinstance(titles, Sequence) else tokens
        raise InputError(f"{given} tokens for {len(heatmaps)} maps: give one token per map")
    panels = [(_blend(image, heatmaps[i], alpha), str(title)) for i, title in enumerate(titles)]
    with _figure([(np.asarray(image.convert("RGB")), "Original"), *panels]) as figure:
        if save_path is not None:
            _save(figure, _with_extension(save_path))
            _save_each(panels, _with_extension(save_path))
        plt.show()


def _check_picture(image: Any) -> None:
    if not isinstance(image, Image.Image):
        raise ImageError(f"image must be a PIL image, not a {type(image).__name__}: open it with PIL.Image.open")


def _checked(maps: Any, axes: int, shape: str) -> Tensor:
    try:
        maps = torch.as_tensor(maps).detach().float().cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"maps must be a tensor of numbers, pass {shape}: {error}") from error
    if maps.ndim != axes or maps.numel() == 0:
        raise InputError(f"maps of {maps.ndim} axes, {list(maps.shape)}, cannot be drawn: pass {shape}")
    return maps


def _blend(image: Image.Image, heatmap: Tensor, alpha: float) -> NDArray[np.uint8]:
    _check_picture(image)
    if not isinstance(alpha, Real) or not 0 <= alpha <= 1:
        raise InputError(f"alpha {alpha!r} is no number from 0 to 1")
    heatmap = _checked(heatmap, 2, "[H, W]")
    height, width = heatmap.shape
    picture = np.asarray(image.convert("RGB").resize((width, height)))
    colours = matplotlib.colormaps[COLOUR_MAP](heatmap.numpy())[..., :3] * 255
    return np.rint((1 - alpha) * picture + alpha * colours).astype(np.uint8)


@contextmanager
def _figure(panels: Sequence[Panel]) -> Iterator[Figure]:
    """Pictures with titles, row by row, in a figure that pyplot can show until the block ends."""
    columns = min(_COLUMNS, len(panels))
    rows = -(-len(panels) // columns)
    size = (_PANEL_INCHES * columns, _PANEL_INCHES * rows)
    figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False)
    try:
        for ax in axes.flat:
            ax.axis("off")
        for ax, (picture, title) in zip(axes.flat, panels, strict=False):
            ax.imshow(picture)
            ax.set_title(printable(title) if title else "", parse_math=False)
        yield figure
    finally:
        plt.close(figure)


def _save_each(panels: Sequence[Panel], path: Path) -> None:
    names = [re.sub(r"[\x00-\x20/\\]", "_", title.strip()) for _, title in panels]
    for name, panel in dict(zip(names, panels, strict=True)).items():
        with _figure([panel]) as figure:
            _save(figure, path.with_name(f"{path.stem}_{name}{path.suffix}"))


def _save(figure: Figure, path: Path) -> None:
    buffer = io.BytesIO()
    try:
        figure.savefig(buffer, format=path.suffix[1:], bbox_inches="tight", pad_inches=0.05)
    except ValueError as error:
        raise FileError(f"cannot write {path}: {error}") from error
    write_atomically(path, buffer.getvalue())


def _with_extension(path: str | os.PathLike[str]) -> Path:
    if not isinstance(path, str | os.PathLike):
        raise FileError(f"{path!r} is no path: pass the name of a file")
    return Path(path) if Path(path).suffix else Path(f"{os.fspath(path)}.png")
