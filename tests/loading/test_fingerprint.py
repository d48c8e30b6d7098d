"""Whether a folder holds the same model as before."""

from pathlib import Path

import pytest

from dexar_fast.loading import fingerprint


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "model.safetensors").write_bytes(bytes(range(250)) * 4000)
    (tmp_path / "m" / "config.json").write_text('{"a": 1}')
    return tmp_path / "m"


def test_a_copy_is_the_same_model(folder: Path, tmp_path: Path) -> None:
    found = fingerprint.of_folder(folder)
    folder.rename(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "README.md").write_text("words")
    assert found and fingerprint.of_folder(str(tmp_path / "elsewhere")) == found


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: (folder / "config.json").write_text('{"a": 2}'),
        lambda folder: (folder / "model.safetensors").write_bytes(bytes(range(1, 251)) * 4000),
        lambda folder: (folder / "model.safetensors").write_bytes(bytes(range(250)) * 4000 + b"x"),
        lambda folder: (folder / "config.json").rename(folder / "other.json"),
    ],
)
def test_other_weights_or_settings_are_another(folder: Path, change: object) -> None:
    found = fingerprint.of_folder(folder)
    change(folder)  # type: ignore[operator]
    assert fingerprint.of_folder(folder) != found


def test_a_small_file_is_read_as_a_whole(folder: Path) -> None:
    path = folder / "config.json"
    for place in range(0, 20_000, 4999):
        before = fingerprint.of_folder(folder)
        path.write_text(" " * place + "x" + " " * (20_000 - place))
        assert fingerprint.of_folder(folder) != before


def test_a_name_on_the_hub_has_none(tmp_path: Path) -> None:
    assert fingerprint.of_folder("llava-hf/llava-1.5-7b-hf") is fingerprint.of_folder(None) is None
    assert fingerprint.of_folder(tmp_path / "gone") is None
