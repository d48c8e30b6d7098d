"""What an installation holds: a wheel built from a copy of the sources and used outside of it."""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version
from paths import ROOT

FOLDERS = (".ci", ".github", "bench", "csrc", "dexar_fast", "examples", "kernels", "tests")
FILES = ("setup.py", "pyproject.toml", "README.md", "CHANGELOG.md", "LICENSE", "MANIFEST.in", "Makefile", ".gitignore")
FILES += (".clang-format", "ARCHITECTURE.md", "CONTRIBUTING.md", "constraints.txt", "constraints-oldest.txt")
FILES += ("constraints-adapters.txt", "constraints-bridges.txt")
BUILT = shutil.ignore_patterns("*.so", "*.pyc", "__pycache__")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
pytestmark = pytest.mark.slow

RUN = "from dexar_fast.cli.app import main; main()"


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The unpacked source distribution of a clean copy of the sources."""
    folder = tmp_path_factory.mktemp("sdist")
    for name in FOLDERS:
        shutil.copytree(ROOT / name, folder / "source" / name, ignore=BUILT)
    for name in FILES:
        shutil.copy(ROOT / name, folder / "source" / name)
    code = "from setuptools import build_meta; print(build_meta.build_sdist('..'))"
    subprocess.run([sys.executable, "-c", code], cwd=folder / "source", check=True, capture_output=True)
    (archive,) = folder.glob("*.tar.gz")
    with tarfile.open(archive) as packed:
        packed.extractall(folder, filter="data")
    return folder / archive.name.removesuffix(".tar.gz")


def build(sdist: Path, folder: Path, **environment: str) -> Path:
    """Builds a wheel from the source distribution and unpacks it; no network, no build environment."""
    source = shutil.copytree(sdist, folder / "source")
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
def site(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(sdist, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def portable_site(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    nothing = tmp_path_factory.mktemp("nothing")  # in PATH: no nvcc either
    return build(sdist, tmp_path_factory.mktemp("portable"), CC="/bin/false", CXX="/bin/false", PATH=str(nothing))


def test_the_sdist_holds_every_file_that_its_tests_need(sdist: Path) -> None:
    def files(folder: Path) -> set[Path]:
        return {path.relative_to(ROOT) for path in folder.rglob("*") if path.is_file()}

    unpacked = {path.relative_to(sdist) for path in sdist.rglob("*") if path.is_file()}
    needed = {path for name in FOLDERS for path in files(ROOT / name) if path.suffix not in (".so", ".pyc")}
    assert needed | set(map(Path, FILES)) <= unpacked
    assert not [path for path in unpacked if path.suffix in (".so", ".pyc")]


def tags(site: Path) -> str:
    (wheel,) = site.parent.glob("*.whl")
    return wheel.stem.split("-", 2)[2]


def test_a_wheel_is_bound_to_a_platform_only_by_an_extension_in_it(site: Path, portable_site: Path) -> None:
    assert tags(site).startswith(f"cp{sys.version_info.major}{sys.version_info.minor}-")
    assert not tags(site).endswith("-any")
    assert tags(portable_site) == "py3-none-any"
    assert not list(portable_site.rglob("*.so"))
    (metadata,) = portable_site.glob("*.dist-info/WHEEL")
    assert "Root-Is-Purelib: true" in metadata.read_text()


def pins(name: str) -> dict[str, list[str]]:
    """The versions of each package in a file of constraints."""
    found: dict[str, list[str]] = {}
    for line in (ROOT / name).read_text().splitlines():
        if not line.startswith("#"):
            pinned = Requirement(line)  # a path would be none
            (specifier,) = pinned.specifier
            assert pinned.url is None
            assert specifier.operator == "=="
            found.setdefault(canonicalize_name(pinned.name), []).append(specifier.version)
    return found


EXTRAS: dict[str, list[str]] = PROJECT["project"]["optional-dependencies"]


def listed(variable: str) -> list[str]:
    """The extras that a variable of the Makefile adds to those of others."""
    line = rf"^{variable} :=.*\$\(addprefix --extra ,(.+)\)$"
    (names,) = re.findall(line, (ROOT / "Makefile").read_text(), re.MULTILINE)
    return names.split()


PINNED = {
    "constraints.txt": listed("OLDEST") + listed("PINNED"),
    "constraints-oldest.txt": listed("OLDEST"),
    "constraints-adapters.txt": ["adapters"],
    "constraints-bridges.txt": ["bridges"],
}


def asked_for(extra: str) -> list[Requirement]:
    """What an extra asks for, and the extras that it names."""
    own = [each for each in map(Requirement, EXTRAS[extra]) if each.name != PROJECT["project"]["name"]]
    return own + [each for named in others(extra) for each in asked_for(named)]


def others(extra: str) -> set[str]:
    """The extras that an extra names."""
    found = [each for each in map(Requirement, EXTRAS[extra]) if each.name == PROJECT["project"]["name"]]
    return {name for each in found for name in each.extras}


def requirements(name: str) -> list[Requirement]:
    """All that pyproject.toml asks for, but for what other files pin."""
    always = [*PROJECT["build-system"]["requires"], *PROJECT["project"]["dependencies"]]
    return [*map(Requirement, always), *(each for extra in PINNED[name] for each in asked_for(extra))]


@pytest.mark.parametrize("name", PINNED)
def test_the_pins_hold_all_that_is_asked_for_and_fit(name: str) -> None:
    pinned = pins(name)
    for requirement in requirements(name):
        versions = pinned[canonicalize_name(requirement.name)]
        assert all(requirement.specifier.contains(version) for version in versions), requirement


def test_every_extra_is_pinned() -> None:
    assert others("adapters") | {extra for extras in PINNED.values() for extra in extras} == set(EXTRAS)


def test_a_torch_of_any_build_fits_the_pins() -> None:
    (version,) = pins("constraints.txt")["torch"]
    assert Requirement(f"torch=={version}").specifier.contains(f"{version}+cpu")


def test_the_oldest_pins_are_the_lower_bounds() -> None:
    pinned = pins("constraints-oldest.txt")
    for requirement in requirements("constraints-oldest.txt"):
        (lower,) = [s.version for s in requirement.specifier if s.operator == ">="]
        version = min(pinned[canonicalize_name(requirement.name)], key=Version)  # a later Python may need a later one
        assert version.split(".")[: len(lower.split("."))] == lower.split("."), requirement


def test_make_installs_what_the_build_requires() -> None:
    text = (ROOT / "Makefile").read_text()
    (line,) = [line for line in text.splitlines() if line.startswith("BUILD_REQUIRES := ")]
    required = {Requirement(text).name for text in PROJECT["build-system"]["requires"]}
    assert required <= set(line.split()[2:])


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
