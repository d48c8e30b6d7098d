"""Regions partition the picture, lie where their definition says, and hiding them changes nothing else."""

import sys

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter

from dexar_fast.data.shapes import draw_scene
from dexar_fast.errors import InputError, LibraryError
from dexar_fast.methods.cut import hiding
from dexar_fast.methods.cut import labels as regions

PICTURE = np.asarray(draw_scene(3, size=97).image)[:75]  # 75 x 97


def check_partition(labels, shape):
    assert labels.dtype == np.int32 and labels.shape == shape
    assert np.array_equal(np.unique(labels), np.arange(labels.max() + 1))


@pytest.mark.parametrize("make", [regions.slico, regions.slic])
@pytest.mark.parametrize("count", [1, 9, 50])
def test_superpixels_partition_the_picture(make, count):
    labels = make(PICTURE, count)
    check_partition(labels, PICTURE.shape[:2])
    assert count / 2 <= labels.max() + 1 <= 2 * count


def test_slico_is_opencvs_on_bgr():
    cv2 = pytest.importorskip("cv2")
    side = int(np.sqrt(75 * 97 / 9))
    superpixels = cv2.ximgproc.createSuperpixelSLIC(
        cv2.cvtColor(PICTURE, cv2.COLOR_RGB2BGR), cv2.ximgproc.SLICO, side, 20
    )
    superpixels.iterate(20)
    theirs, ours = superpixels.getLabels(), regions.slico(PICTURE, 9)
    assert all(len(np.unique(ours[theirs == label])) == 1 for label in np.unique(theirs))


@pytest.mark.parametrize("height, width", [(1, 97), (75, 1), (2, 97), (3, 40)])
def test_slico_of_a_thin_picture_has_superpixels_no_longer_than_its_shorter_side(height, width):
    thin = np.ascontiguousarray(PICTURE[:height, :width])
    labels = regions.slico(thin, 1)
    check_partition(labels, (height, width))
    assert labels.max() + 1 >= max(height, width) / min(height, width) / 2


@pytest.mark.parametrize("make, library", [(regions.slico, "cv2.ximgproc"), (regions.slic, "skimage.segmentation")])
def test_a_missing_library_is_named_with_the_command(monkeypatch, make, library):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(LibraryError, match=rf"{library}.*pip install 'dexar-fast\[methods\]'"):
        make(PICTURE, 9)


@pytest.mark.parametrize("height, width, rows, columns", [(7, 5, 7, 5), (75, 97, 8, 6), (10, 3, 3, 1), (1, 1, 1, 1)])
def test_patches_have_edges_cut_to_whole_pixels(height, width, rows, columns):
    labels = regions.patches(height, width, rows, columns)
    check_partition(labels, (height, width))
    assert labels.max() + 1 == rows * columns
    for row, column in np.ndindex(rows, columns):
        top, bottom = (row * height // rows, (row + 1) * height // rows)
        left, right = (column * width // columns, (column + 1) * width // columns)
        assert (labels[top:bottom, left:right] == row * columns + column).all()


def test_cells_of_a_video_count_frame_by_frame():
    labels = regions.video_cells(3, 11, 13)
    check_partition(labels, (3, 11, 13))
    assert labels.max() == 74
    for frame in range(3):
        assert np.array_equal(labels[frame] - 25 * frame, regions.patches(11, 13, 5, 5))


def test_a_users_labels_are_counted_in_ascending_order():
    assert regions.relabelled([[7, -3], [7, 40]]).tolist() == [[1, 0], [1, 2]]


@pytest.mark.parametrize("labels", [[1, 2], [[0.5]], [[]], [[[[1]]]], [["a"]], [[1], [1, 2]], None])
def test_labels_of_another_kind_are_refused(labels):
    with pytest.raises(InputError, match="labels are"):
        regions.relabelled(labels)


@pytest.mark.parametrize(
    "make, said",
    [
        (lambda: regions.patches(4, 4, 5, 1), "4 pixels cannot be cut into 5"),
        (lambda: regions.patches(4, 4, 1, 0), "into 0"),
        (lambda: regions.slic(PICTURE, 0), "not 0"),
        (lambda: regions.slico(PICTURE[:2, :2], 5), "4 pixels has 1 to 4"),
        (lambda: regions.slico(PICTURE[..., 0], 5), "uint8"),
        (lambda: regions.slic(PICTURE / 255, 5), "float64"),
    ],
)
def test_what_cannot_be_cut_is_named(make, said):
    with pytest.raises(InputError, match=said):
        make()


def test_areas_are_the_shares_of_pixels_along_the_order():
    labels = np.array([[0, 0, 0], [1, 2, 2]], dtype=np.int32)
    areas = regions.revealed_areas(labels, torch.tensor([2, 0, 1]))
    assert areas.tolist() == pytest.approx([2 / 6, 5 / 6, 1])


COVERS = {
    "black": lambda picture: np.zeros_like(picture),
    "mean": lambda picture: np.full_like(picture, 1) * np.round(picture.mean((0, 1))).astype(np.uint8),
    "blur": lambda picture: np.asarray(Image.fromarray(picture).filter(ImageFilter.GaussianBlur(9.7))),
}


@pytest.mark.parametrize("fill", COVERS)
def test_hidden_pixels_show_the_cover_and_others_stay(fill):
    labels = regions.patches(75, 97, 4, 3)
    revealed = np.arange(12) % 3 == 0
    covered = hiding.cover(PICTURE, fill)
    found = hiding.hidden(PICTURE, labels, revealed, covered)
    assert found.dtype == np.uint8
    for row, column in np.ndindex(75, 97):
        source = PICTURE if revealed[labels[row, column]] else covered
        assert np.array_equal(found[row, column], source[row, column])
    assert np.array_equal(covered, COVERS[fill](PICTURE))


def test_all_revealed_is_the_picture_and_none_the_cover():
    labels, covered = regions.patches(75, 97, 2, 2), hiding.cover(PICTURE, "black")
    assert np.array_equal(hiding.hidden(PICTURE, labels, np.ones(4, bool), covered), PICTURE)
    assert not hiding.hidden(PICTURE, labels, np.zeros(4, bool), covered).any()


def test_a_videos_frames_are_hidden_by_their_own_cells():
    video = np.stack([PICTURE, PICTURE[::-1]])
    labels = regions.video_cells(2, 75, 97, 1, 1)
    found = hiding.hidden(video, labels, np.array([False, True]), np.zeros_like(video))
    assert not found[0].any() and np.array_equal(found[1], video[1])


@pytest.mark.parametrize(
    "call, said",
    [
        (lambda: hiding.cover(PICTURE, "white"), "'black', 'mean', 'blur'"),
        (lambda: hiding.hidden(PICTURE, regions.patches(75, 96, 2, 2), np.ones(4, bool), PICTURE), "differ in size"),
        (lambda: hiding.hidden(PICTURE, regions.patches(75, 97, 2, 2), np.ones(3, bool), PICTURE), "region 3"),
    ],
)
def test_what_does_not_fit_is_named(call, said):
    with pytest.raises(InputError, match=said):
        call()
