"""Maps over large pictures: drawn at screen size or in bands, in little memory, as if drawn at once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from made_explanations import grey, make
from PIL import Image

from dexar_fast import InputError
from dexar_fast.report.drawing import colours, overlay
from dexar_fast.vision import maps
from dexar_fast.vision.grid import Grid

TILES = (Grid(0, 0, 2, 3, (0, 0, 83, 40)), Grid(0, 6, 1, 2, (83, 0, 150, 101)), Grid(0, 0, 3, 4, None))


def noise(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(1).integers(0, 256, (height, width, 3), dtype=np.uint8))


def at_once(image: Image.Image, heat: np.ndarray) -> np.ndarray:
    """The overlay in float64, pixel by pixel, [height, width, 3]."""
    heat = heat.astype(np.float64)
    level = np.minimum(np.floor(heat * 4), 3)
    thick = max(1, round(max(heat.shape) / 240))
    padded = np.pad(level, thick, mode="edge")
    height, width = heat.shape
    neighbours = [
        padded[down : down + height, right : right + width]
        for down, right in ((0, thick), (2 * thick, thick), (thick, 0), (thick, 2 * thick))
    ]
    # beyond the edge there is no neighbour: only what lies inside counts
    y, x = np.mgrid[:height, :width]
    inside = [y >= thick, y < height - thick, x >= thick, x < width - thick]
    on_line = np.any([(level > near) & there for near, there in zip(neighbours, inside, strict=True)], axis=0)
    opacity = np.where(on_line, 0.95, 0.45) * np.sqrt(heat)
    colour = 255 * matplotlib.colormaps["inferno"](np.minimum(255, (heat * 256).astype(int)))[..., :3]
    return (1 - opacity[..., None]) * np.asarray(image) + opacity[..., None] * colour


@pytest.mark.parametrize("band", [1, 7, 1000, 2**18])
@pytest.mark.parametrize(("size", "grids"), [((150, 101), TILES), ((1, 700), ()), ((700, 1), ()), ((487, 311), ())])
def test_bands_make_the_picture_that_one_array_makes(
    monkeypatch: pytest.MonkeyPatch, size: tuple[int, int], grids: Any, band: int
) -> None:
    image = noise(*size)
    explanation = make(grids=grids or (Grid(0, 0, 3, 4, None),), images=(image,))
    whole = explanation.heatmap(1, resolution="image")
    monkeypatch.setattr(maps, "BAND_PIXELS", band)
    np.testing.assert_allclose(explanation.heatmap(1, resolution="image"), whole, atol=1e-6)
    drawn = np.asarray(explanation.overlay(1), np.float64)
    far = np.abs(drawn - at_once(image, whole)).max(-1) > 1.3
    assert far.mean() < 2e-3, "where a rounding puts the heat on the other side of a level"


def test_strength_multiplies_the_heat() -> None:
    image, heat = noise(40, 30), np.linspace(0, 1, 1200, dtype=np.float32).reshape(30, 40)
    half = overlay.draw_overlay(image, heat, 0.5)
    assert half.tobytes() == overlay.draw_overlay(image, heat * np.float32(0.5)).tobytes()
    assert overlay.draw_overlay(image, heat, 0.0).tobytes() == image.tobytes()


@pytest.mark.parametrize(
    ("size", "screen"), [((5000, 100), (1920, 38)), ((300, 2400), (240, 1920)), ((1920, 1080), (1920, 1080))]
)
def test_a_large_picture_is_drawn_at_screen_size_or_its_own(size: tuple[int, int], screen: tuple[int, int]) -> None:
    explanation = make(images=(grey(*size),))
    assert explanation.overlay().size == screen
    assert explanation.overlay(0, size="full").size == size
    assert explanation.overlay(image=grey(*size), size="full").size == size
    assert explanation.images[0].size == size


def test_a_picture_below_screen_size_is_the_same_at_full_size() -> None:
    explanation = make(images=(noise(61, 47),))
    for token in (None, 1):
        assert explanation.overlay(token).tobytes() == explanation.overlay(token, size="full").tobytes()


@pytest.mark.parametrize("size", ["large", "", None, 1920, (3, 4), ["full"]])
def test_another_size_is_refused(size: Any) -> None:
    with pytest.raises(InputError, match="size must be 'screen' or 'full'"):
        make().overlay(size=size)


def test_the_colours_are_those_of_matplotlibs_map() -> None:
    expected = matplotlib.colormaps[colours.COLOUR_MAP](np.arange(256))[:, :3] * 255
    np.testing.assert_array_equal(colours.palette(), np.rint(expected).astype(np.uint8))
    values = np.linspace(0, 1, 1001, dtype=np.float32)
    np.testing.assert_array_equal(colours.at(values), [colours.of(float(value)) for value in values])
    with pytest.raises(ValueError, match="read-only"):
        colours.palette()[0] = 0


MEASURE = """
import sys
from pathlib import Path
from PIL import Image
from made_explanations import make
from dexar_fast.cli.output import results
from dexar_fast.vision.images import load_images
def rss(name):
    return 1024 * int(Path("/proc/self/status").read_text().partition(name)[2].split()[0])
folder, side = Path(sys.argv[1]), int(sys.argv[2])
results.write(make(), folder, "token")  # what libraries and a small picture take is not counted
before = rss("VmRSS:")
Path("/proc/self/clear_refs").write_text("5")
explanation = make(images=tuple(load_images(folder / "large.jpg")))
explanation.overlay()
explanation.save(folder / "saved")
results.write(explanation, folder, "token")
explanation.overlay(size="full")
print((rss("VmHWM:") - before) / (3 * side**2))
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peak memory is read from /proc")
def test_a_large_photograph_takes_three_times_its_pixels_at_most(tmp_path: Path) -> None:
    side = 5000
    pixels = np.random.default_rng(0).integers(0, 256, (side // 5, side // 5, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((side, side)).save(tmp_path / "large.jpg", quality=85)
    command = [sys.executable, "-c", MEASURE, str(tmp_path), str(side)]
    path = os.pathsep.join([str(Path(__file__).parents[1] / "support"), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": path})
    assert not done.returncode, done.stderr
    assert 1 < float(done.stdout) < 3
