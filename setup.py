"""Builds dexar_fast._C where there is a C++ compiler, dexar_fast._cuda where there is nvcc, and installs without them.

Everything else about the package is in pyproject.toml.
"""

import shutil
import subprocess
import sys
from glob import glob
from pathlib import Path

from pybind11.setup_helpers import Pybind11Extension, build_ext
from setuptools import Extension, find_packages, setup

# torch brings libgomp on Linux and shares it with the extension; elsewhere the extension runs on one thread.
OPENMP = ["-fopenmp"] if sys.platform == "linux" else []
# A product and a sum become one instruction where the CPU has it; vectors are only passed to inlined functions.
FLAGS = [*OPENMP, "-O3", "-ffp-contract=fast", "-Wno-psabi"] if sys.platform != "win32" else []
CUDA_ARCHITECTURES = ("80", "90a", "100")
CUDA_FLAGS = ["-O3", "-std=c++17", "-Xcompiler", "-fPIC", "-shared", "-Icsrc", "-Werror", "all-warnings"]


class CudaLibrary(Extension):
    """Code for GPUs in a library of its own, without Python or torch, that ctypes loads."""

    def build(self, output: Path) -> None:
        nvcc = shutil.which("nvcc")
        if nvcc is None:
            raise FileNotFoundError("there is no nvcc")
        codes = [f"-gencode=arch=compute_{number},code=sm_{number}" for number in CUDA_ARCHITECTURES]
        output.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run([nvcc, *CUDA_FLAGS, *codes, *self.sources, "-o", str(output)], check=True)


class BuildIfPossible(build_ext):
    """A failed build costs a backend, not the installation: everything also runs on torch alone."""

    def build_extension(self, ext: Extension) -> None:
        try:
            if isinstance(ext, CudaLibrary):
                ext.build(Path(self.get_ext_fullpath(ext.name)))
            else:
                super().build_extension(ext)
        except Exception as error:  # every compiler and platform fails with a type of its own
            print(f"dexar_fast: {ext.name} is left out, its operations will run on torch: {error}")


setup(
    packages=[*find_packages(include=["dexar_fast", "dexar_fast.*"]), "dexar_fast.kernels"],
    package_dir={"dexar_fast.kernels": "kernels"},
    ext_modules=[
        Pybind11Extension(
            "dexar_fast._C",
            sorted(glob("csrc/**/*.cpp", recursive=True)),
            depends=sorted(glob("csrc/**/*.h", recursive=True)),
            include_dirs=["csrc"],
            cxx_std=17,
            extra_compile_args=FLAGS,
            extra_link_args=OPENMP,
            optional=True,
        ),
        CudaLibrary("dexar_fast._cuda", sorted(glob("csrc/cuda/*.cu")), depends=glob("csrc/cuda/*.h"), optional=True),
    ],
    cmdclass={"build_ext": BuildIfPossible},
)
