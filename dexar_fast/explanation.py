"""The result of explaining an answer: which image patches each of its tokens depended on."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dexar_fast.errors import DexarError, FileError, InputError
from dexar_fast.files import write_atomically
from dexar_fast.report import placing, scales, sizes, tables, words
from dexar_fast.report.chosen import Choice, Picture, Tokens
from dexar_fast.report.plain_words import counted
from dexar_fast.results import shards, storage

if TYPE_CHECKING:
    from pandas import DataFrame

    from dexar_fast.report.drawing.figure import Plot

_TOKENS_IN_REPR = 12


@dataclass(frozen=True, eq=False, repr=False)
class Explanation(Choice):
    """DEX-AR's scores, weights and maps for the T tokens of an answer, raw: Eqs. 4-6 of the paper.

    T tokens, L layers, H heads, N visual tokens. All tensors live on the CPU; those of real numbers are
    float32, or float64 for a float64 model. G = relu(d logit / d attention), w the head weight, delta the
    token weight.

    Attributes:
        token_ids: [T] int64.
        tokens: the text of each token, T of them.
        visual_positions: [N] int64, where the visual tokens stand in the sequence; an encoder's stand before it.
        visual_scores: [T, L, H], S_img = max over the visual keys of G.
        text_scores: [T, L, H], S_txt = max over the text keys of G.
        head_weights: [T, L, H], w = relu(S_img - S_txt).
        token_weights: [T], delta = relu(max S_img - max S_txt), the maxima over layers and heads.
        token_maps: [T, N], E = sum over layers and heads of w * G.
        unfiltered_token_maps: [T, N], U = sum over layers and heads of G.
        sequence_map: [N], sum over tokens of delta * E (of E in [0, 1] with sequence_norm="token").
        unfiltered_sequence_map: [N], the same without filters: sum over tokens of U.
        grids: where the visual tokens lie in the images; empty where the model's geometry is unknown.
        diagnostics: plain JSON: what the filters left over.
        metadata: plain JSON: the model, the settings and the versions that made this.
        images: the upright RGB originals, or none.
        text_relevance: how much each token rests on each word before it (`dexar_fast.results.text_relevance`), or None:
            `Explainer(text_relevance=True)` finds it.

    Raises:
        InputError: a field of the wrong type, shape, dtype or device.
        NumericalError: NaN or infinity in an array.
    """

    def __repr__(self) -> str:
        pairs = zip(self.tokens[:_TOKENS_IN_REPR], self.token_weights.tolist(), strict=False)
        listed = [f"{token!r} {weight:.3g}" if self.weighted else repr(token) for token, weight in pairs]
        listed += ["..."] if len(self) > _TOKENS_IN_REPR else []
        layers, heads = self.head_weights.shape[1:]
        of = f", {counted(layers, 'layers')} x {counted(heads, 'heads')}" if layers else ""
        sizes = f"{counted(len(self), 'tokens')}, {counted(len(self.visual_positions), self.values)}{of}"
        what = "token weights" if self.weighted else "tokens"
        return f"<{type(self).__name__}: {sizes}; {what}: {', '.join(listed)}>"

    def _repr_html_(self) -> str:
        """What a notebook shows: the answer in the colours of its weights, and its map at most 480 pixels wide."""
        from dexar_fast.report import cell

        return cell.html(self)

    @property
    def text(self) -> str:
        """The answer; without a tokenizer the ids of its tokens."""
        return words.answer(self)

    def heatmap(
        self,
        token: Tokens | None = None,
        image: int = 0,
        *,
        resolution: Literal["grid", "image"] = "grid",
        filtered: bool = True,
    ) -> NDArray[np.float32]:
        """A map in [0, 1]: min-max over the cells of all grids, so that images compare; zeros if constant.

        Args:
            token: whose map (negative counts from the end); None is the map of the whole answer. A slice or a list of
                indices is a phrase: the sum of its tokens' maps, each times its token's weight as in Eq. 6 (the plain
                sum if all weights are 0, and of maps without filters).
            image: which image of the prompt.
            resolution: "grid", one number a cell, for an image with a single grid; or "image", bilinear
                inside the grids' boxes, the mean where grids overlap, 0 outside.
            filtered: False takes the maps without the head filter and the token weights.

        Returns:
            float32 [rows, columns] or [height, width].

        Raises:
            InputError: an index out of range, an empty phrase or one that names a token twice, a model of unknown
                geometry, or an image that was not kept.
        """
        if resolution not in ("grid", "image"):
            raise InputError(f"resolution must be 'grid' or 'image', not {resolution!r}")
        if resolution == "image":
            return self._canvas(token, image, self._image(image).size, filtered)[:]
        placing.check_geometry(self)
        placed = placing.place(self, self._raw_map(token, filtered), self._image_index(image))
        if len(placed) > 1:
            raise InputError(f"image {image} has {len(placed)} grids: resolution='image' merges them")
        return placed[0][1]

    def overlay(
        self,
        token: Tokens | None = None,
        image: int | Picture | None = None,
        *,
        filtered: bool = True,
        scale: Literal["weight", "own"] = "own",
        size: Literal["screen", "full"] = "screen",
    ) -> Image.Image:
        """A map over an image in colours that colour-blind readers can tell apart.

        Opacity grows with the heat: cold pixels stay as they are.

        Args:
            token: as in `heatmap`.
            image: which of the explained images (None: the first); or a picture of any size (PIL, array
                or path) to draw the map of the first image over.
            filtered: as in `heatmap`.
            scale: as in `plot`.
            size: "screen" draws a larger image at 1,920 pixels on its longer side; "full" at its own size.

        Returns:
            RGB, of the image's size or that of the screen.

        Raises:
            InputError: as in `heatmap`, an unknown `scale` or `size`; its subclass ImageError for a picture that cannot
                be read.
        """
        from dexar_fast.report.drawing.overlay import draw_overlay

        index, picture = self._picture(image)
        shown = sizes.sized(picture, size)
        strength = scales.strength(self, token, scale, filtered)
        return draw_overlay(shown, self._canvas(token, index, shown.size, filtered), strength)

    def plot(
        self,
        tokens: Sequence[int] | None = None,
        image: int | Picture | None = None,
        *,
        max_tokens: int = 28,
        filtered: bool = True,
        scale: Literal["weight", "own"] = "weight",
    ) -> "Plot":
        """The question, the answer, the image, the map of the answer and of each token, and what their colours mean.

        A notebook cell that ends with it shows it; elsewhere `figure, axes = e.plot()`, then `figure.savefig(path)`.
        pyplot does not know the figure, so nothing has to be closed.

        Args:
            tokens: which to show. None is all of them; of an answer longer than `max_tokens` (from 1) those of the
                greatest weight, in the order of the answer, and the figure says so.
            image, filtered: as in `overlay`.
            scale: "weight": a token's heat times its weight / the largest of the answer, so that weight 0 shows none
                (filtered maps only); "own": as it is.

        Returns:
            (figure, axes): those of the pictures in reading order, [2 + tokens shown].

        Raises:
            InputError: as in `overlay`; `tokens` that are no list, `max_tokens` that is no positive number.
        """
        from dexar_fast.report.drawing.figure import PANEL_PIXELS, draw_figure

        shown = scales.weightiest(self, max_tokens) if tokens is None else self._token_indices(tokens)
        index, picture = self._picture(image)
        small = sizes.within(picture, PANEL_PIXELS, PANEL_PIXELS)
        heats = [
            self._canvas(token, index, small.size, filtered)[:] * scales.strength(self, token, scale, filtered)
            for token in (None, *shown)
        ]
        return draw_figure(self, small, heats, shown, filtered and scale == "weight", all_of_it=tokens is not None)

    def to_html(self, path: str | os.PathLike[str], *, by: Literal["token", "word"] = "token") -> None:
        """Write a page to explore the answer in: one file that works offline, in any browser of 2023 or later.

        The map follows the token under the pointer, the finger or the arrow keys. Beside it: the weights of the heads,
        what the filters left over in plain words, the settings and versions. Maps and head weights are drawn in 256
        steps (head weights in 16 or 6, where there are very many).

        Args:
            path: an existing file is replaced once the new one is complete.
            by: "token", or "word", which merges the tokens of a word. Its weight is the highest of theirs; its map
                is the sum of theirs, each times its token's weight as in Eq. 6 (the plain sum if all weights are 0);
                each of its heads shows its highest weight. Tokens that form one character are always merged.

        Raises:
            InputError: another value of `by`.
            FileError: the folder does not exist, or it cannot be written there.
        """
        from dexar_fast.report.page import document

        document.write(self, path, by)

    def frames(
        self,
        image: int | Picture | None = None,
        *,
        by: Literal["token", "word"] = "token",
        width: int = 480,
        scale: Literal["weight", "own"] = "weight",
    ) -> list[Image.Image]:
        """An animation of the answer, one RGB picture for each token: its map, and under it the answer up to there.

        Args:
            image: as in `overlay`.
            by: as in `to_html`.
            width: of each picture in pixels, from 64.
            scale: as in `plot`; a word's weight is the highest of its tokens.

        Raises:
            InputError: as in `overlay`, or another value of `by` or `width`.
        """
        from dexar_fast.report.drawing import animation

        index, picture = self._picture(image)
        return animation.frames(self, picture, self._image_index(index), by, width, scale)

    def to_gif(
        self,
        path: str | os.PathLike[str],
        image: int | Picture | None = None,
        *,
        by: Literal["token", "word"] = "token",
        width: int = 480,
        scale: Literal["weight", "own"] = "weight",
        seconds: float = 0.6,
    ) -> None:
        """Write what `frames` gives as an animated GIF that repeats, each picture shown for `seconds`.

        Raises:
            InputError: as in `frames`, no tokens, or `seconds` that is no duration. FileError: it cannot be written.
        """
        from dexar_fast.report.drawing import animation

        write_atomically(path, animation.gif(self.frames(image, by=by, width=width, scale=scale), seconds))

    def to_dict(self) -> dict[str, Any]:
        """All but the images in plain values that `json.dumps` takes: `text` and the fields by their names.

        Arrays are nested lists of their numbers, exactly; grids are dicts of what `dexar_fast.vision.grid.Grid` holds;
        `text_relevance` is a dict of its fields, or None.
        """
        return tables.plain(self)

    def to_pandas(self) -> "DataFrame":
        """A table with a row for each token.

        Its columns: `token`, its text; `token_id`; `weight`; `heads_kept`, how many of its L * H heads the filter kept;
        and where its filtered map is brightest: `image` (from 0; the first frame of a video's cell), `x` and `y`, the
        centre of the cell in fractions of the image's width and height from its upper left corner (beyond 0..1 in what
        the model padded). These three are NaN where the map is constant or its place is unknown.

        Raises:
            LibraryError: pandas is not installed; dexar_fast does not bring it. InputError: the size of a picture that
                was not kept is unknown, and maps lie in boxes of its pixels.
        """
        return tables.frame(self)

    def save(self, path: str | os.PathLike[str], *, images: bool = True) -> None:
        """Write all of it to one safetensors file, exactly: arrays bit for bit, images by their pixels.

        An image that was read from a PNG or JPEG is kept as that file, with what else it holds (place, camera); any
        other as PNG. `images=False` leaves them out but for their sizes, `metadata["image_sizes"]`: (width, height).
        The layout is in `dexar_fast.results.storage`. `diagnostics` and `metadata` become JSON: tuples come back as
        lists. An existing file is replaced once the new one is complete.

        Raises:
            FileError: the folder does not exist, or it cannot be written there.
        """
        storage.write(path, self, images=images)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read what `save` wrote, or from a folder what `out=` has written of an answer so far.

        For a folder, `metadata["complete"]` says whether it holds the whole answer.

        Raises:
            FileError: no such file, not an explanation, damaged, or written by a newer version of dexar_fast; a folder
                in which nothing is finished yet.
        """
        content = shards.read(path) if storage.is_folder(path) else storage.read(path)
        try:
            return cls(**content)
        except (DexarError, TypeError) as error:
            raise FileError(f"{path} does not hold a valid explanation: {error}") from error
