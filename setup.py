"""Builds dexar_fast._C where there is a C++ compiler, dexar_fast._cuda where there is nvcc, and installs without them.

Everything else about the package is in pyproject.toml.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from glob import glob
from pathlib import Path

from pybind11.setup_helpers import Pybind11Extension, build_ext
from setuptools import Extension, find_packages, setup
from setuptools.command.bdist_wheel import bdist_wheel

# torch brings libgomp on Linux and shares it with the extension; elsewhere the extension runs on one thread.
OPENMP = ["-fopenmp"] if sys.platform == "linux" else []
# A product and a sum become one instruction where the CPU has it; vectors are only passed to inlined functions.
FLAGS = [*OPENMP, "-O3", "-ffp-contract=fast", "-Wno-psabi"] if sys.platform != "win32" else []
CUDA_ARCHITECTURES = os.environ.get("TORCH_CUDA_ARCH_LIST") or "8.0;9.0a;10.0"  # as torch's own extensions read it
CUDA_FLAGS = ["-O3", "-std=c++17", "-Xcompiler", "-fPIC", "-Icsrc", "-Werror", "all-warnings"]

OBJECTS = Path("build", sys.implementation.cache_tag)  # they stay: the next build compiles only what changed
NINJA = """
builddir = {folder}
rule compile
  command = {compile} -MD -MF $out.d -c $in -o $out
  depfile = $out.d
rule link
  command = {link} $in -o $out {libraries}
"""


class CudaLibrary(Extension):
    """Code for GPUs in a library of its own, without Python or torch, that ctypes loads."""

    def commands(self) -> tuple[list[str], list[str], list[str]]:
        """What compiles, what links, and what ends the link's command."""
        nvcc = shutil.which("nvcc")
        if nvcc is None:
            raise FileNotFoundError("there is no nvcc")
        codes = [code for named in re.split(r"[;\s]+", CUDA_ARCHITECTURES.strip()) for code in architecture(named)]
        return [nvcc, "--threads=0", *CUDA_FLAGS, *codes], [nvcc, "-shared"], []


def architecture(named: str) -> list[str]:
    """nvcc's options for "9.0a", or for "9.0+PTX", which newer cards can translate."""
    number = named.removesuffix("+PTX").replace(".", "")
    kinds = ["sm", "compute"] if named.endswith("+PTX") else ["sm"]
    return [f"-gencode=arch=compute_{number},code={kind}_{number}" for kind in kinds]


class BuildIfPossible(build_ext):
    """A failed build costs a backend, not the installation: everything also runs on torch alone."""

    def build_extensions(self) -> None:
        self.extensions[:] = [ext for ext in self.extensions if self.built(ext)]  # the list of the distribution too

    def built(self, ext: Extension) -> bool:
        try:
            self.build_extension(ext)
        except Exception as error:  # every compiler and platform fails with a type of its own
            print(f"dexar_fast: {ext.name} is left out, its operations will run on torch: {error}")
            return False
        return True

    def build_extension(self, ext: Extension) -> None:
        if isinstance(ext, CudaLibrary):
            self.run_ninja(ext, *ext.commands())
        elif self.compiler.compiler_type == "unix":
            self.run_ninja(ext, *self.commands(ext))
        else:
            super().build_extension(ext)

    def commands(self, ext: Extension) -> tuple[list[str], list[str], list[str]]:
        """The same for C++, from CC, CXX, CFLAGS, ... and the settings of this Python."""
        folders = [f"-I{folder}" for folder in (*ext.include_dirs, *self.compiler.include_dirs)]
        compiler = [*self.compiler.compiler_so_cxx, *folders, *ext.extra_compile_args]
        return compiler, self.compiler.linker_so_cxx, ext.extra_link_args

    def run_ninja(self, ext: Extension, compiler: list[str], linker: list[str], libraries: list[str]) -> None:
        """Compiles and links on all cores."""
        folder, output = OBJECTS / ext.name, Path(self.get_ext_fullpath(ext.name))
        objects = {source: folder / Path(source).with_suffix(".o") for source in ext.sources}
        rules = NINJA.format(
            folder=folder, compile=shlex.join(compiler), link=shlex.join(linker), libraries=shlex.join(libraries)
        )
        steps = [f"build {path(made)}: compile {path(source)}" for source, made in objects.items()]
        steps.append(f"build {path(output)}: link {' '.join(map(path, objects.values()))}\n")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "build.ninja").write_text("\n".join([rules, *steps]))
        subprocess.run([ninja(), "--quiet", "-f", folder / "build.ninja"], check=True)


def path(name: str | Path) -> str:
    """As ninja reads it."""
    return re.sub(r"([$ :])", r"$\1", str(name))


def ninja() -> str:
    """The one installed beside this Python, else the first in PATH."""
    found = shutil.which("ninja", path=sysconfig.get_path("scripts")) or shutil.which("ninja")
    if found is None:
        raise FileNotFoundError("there is no ninja: pip install ninja")
    return found


class NamedByWhatWasBuilt(bdist_wheel):
    """Only a wheel that holds an extension is bound to a platform."""

    @property
    def root_is_pure(self) -> bool:
        return not self.distribution.has_ext_modules()

    @root_is_pure.setter
    def root_is_pure(self, _: bool | None) -> None:
        """setuptools guesses it before anything is built."""


setup(
    packages=[*find_packages(include=["dexar_fast", "dexar_fast.*"]), "dexar_fast.kernels"],
    package_dir={"dexar_fast.kernels": "kernels"},
    ext_modules=[
        Pybind11Extension(
            "dexar_fast._C",
            sorted(glob("csrc/**/*.cpp", recursive=True)),
            include_dirs=["csrc"],
            cxx_std=17,
            extra_compile_args=FLAGS,
            extra_link_args=OPENMP,
            optional=True,
        ),
        CudaLibrary("dexar_fast._cuda", sorted(glob("csrc/cuda/*.cu")), optional=True),
    ],
    cmdclass={"build_ext": BuildIfPossible, "bdist_wheel": NamedByWhatWasBuilt},
)
