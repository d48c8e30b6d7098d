"""Builds dexar_fast._C where there is a C++ compiler and installs without it where there is none.

Everything else about the package is in pyproject.toml.
"""

import sys
from glob import glob

from pybind11.setup_helpers import Pybind11Extension, build_ext
from setuptools import Extension, find_packages, setup

# torch brings libgomp on Linux and shares it with the extension; elsewhere the extension runs on one thread.
OPENMP = ["-fopenmp"] if sys.platform == "linux" else []
# A product and a sum become one instruction where the CPU has it; vectors are only passed to inlined functions.
FLAGS = [*OPENMP, "-O3", "-ffp-contract=fast", "-Wno-psabi"] if sys.platform != "win32" else []


class BuildIfPossible(build_ext):
    """A failed build costs the C++ backend, not the installation: everything also runs on torch alone."""

    def build_extension(self, ext: Extension) -> None:
        try:
            super().build_extension(ext)
        except Exception as error:  # every compiler and platform fails with a type of its own
            print(f"dexar_fast: {ext.name} is left out, all operations will run on torch: {error}")


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
        )
    ],
    cmdclass={"build_ext": BuildIfPossible},
)
