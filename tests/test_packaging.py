"""What an installation holds: a wheel built from a copy of the sources and used outside of it."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ("dexar_fast", "csrc", "kernels", "setup.py", "pyproject.toml", "README.md", "LICENSE")
pytestmark = pytest.mark.slow

RUN = "from dexar_fast.cli import main; main()"


def build(folder: Path, **environment: str) -> Path:
    """Builds a wheel from a clean copy of the sources and unpacks it; no network, no build environment."""
    source = folder / "source"
    source.mkdir()
    for name in SOURCES:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, source / name)
    for built in source.glob("dexar_fast/_C.*.so"):
        built.unlink()
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-index", "--no-build-isolation"]
    subprocess.run([*pip, "--wheel-dir", folder, source], env=os.environ | environment, check=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    shutil.rmtree(source)
    return folder / "site"


def python(site: Path, code: str, *arguments: str) -> str:
    """Runs code against the unpacked wheel, from a folder where nothing of the repository is in reach."""
    packages = [path for path in sys.path if path.endswith("-packages")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(site), *packages]), "COLUMNS": "200"}
    command = [sys.executable, "-S", "-c", code, *arguments]  # -S: an editable install does not hook in
    return subprocess.check_output(command, env=environment, cwd=site.parent, text=True)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def portable_site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("portable"), CC="/bin/false", CXX="/bin/false")


def test_the_wheel_holds_every_file_of_the_package(site: Path) -> None:
    def files(root: Path, below: str) -> set[Path]:
        found = {path.relative_to(root) for path in root.glob(f"{below}/**/*") if path.is_file()}
        return {path for path in found if path.suffix not in (".so", ".pyc")}

    expected = files(ROOT, "dexar_fast") | {"dexar_fast" / path for path in files(ROOT, "kernels")}
    assert files(site, "dexar_fast") == expected


def test_the_wheel_is_what_gets_imported_with_its_extension_and_kernels(site: Path) -> None:
    code = "import dexar_fast, dexar_fast._C, dexar_fast.kernels; print(dexar_fast._C.__file__)"
    folders = "print(*dexar_fast.__path__, *dexar_fast.kernels.__path__, sep='\\n')"
    extension, *paths = python(site, f"{code}; {folders}").splitlines()
    assert Path(extension).parent == site / "dexar_fast"
    assert paths == [str(site / "dexar_fast"), str(site / "dexar_fast" / "kernels")]


def test_the_demo_runs_from_the_wheel(site: Path, tmp_path: Path) -> None:
    printed = python(site, RUN, "demo", "--out", str(tmp_path / "out"))
    names = ["answer.png", "explanation.safetensors", "report.html", "tokens.png"]
    assert sorted(os.listdir(tmp_path / "out")) == names
    assert all(str(tmp_path / "out" / name) in printed for name in names)


def test_without_a_compiler_it_installs_and_the_doctor_says_what_is_missing(portable_site: Path) -> None:
    assert not list(portable_site.glob("dexar_fast/_C.*.so"))
    printed = " ".join(python(portable_site, RUN, "doctor").split())
    assert "install a C++ compiler" in printed
    assert "runs everything on every device" in printed


def test_without_a_compiler_the_demo_runs(portable_site: Path, tmp_path: Path) -> None:
    python(portable_site, RUN, "demo", "--out", str(tmp_path / "out"))
    assert (tmp_path / "out" / "answer.png").is_file()


def test_the_checkout_has_kernels_but_does_not_shadow_hugging_faces() -> None:
    code = "import sys; from importlib.util import find_spec; import dexar_fast.kernels"
    checks = "print(*dexar_fast.kernels.__path__, find_spec('kernels') and find_spec('kernels').origin)"
    path, origin = subprocess.check_output([sys.executable, "-c", f"{code}; {checks}"], cwd=ROOT, text=True).split()
    assert Path(path) == ROOT / "kernels"
    assert origin == "None"  # a namespace: any installed package of the name goes before it
