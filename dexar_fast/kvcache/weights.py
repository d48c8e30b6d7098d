"""The state of a model, as far as its keys and values depend on it: each entry of a pool belongs to one state.

A state covers the modules, their classes and code, hooks and attributes (those of adapters too), the configs, and of
each tensor the identity, the address, the version if it has one, and SAMPLES elements. An edit through `.data`, or of
an inference tensor, changes no version: it is seen if it meets a sample, as every edit of a whole matrix does. A model
that runs the user's code (a hook, a forward in place of its own) never has the same state twice: what such code does
may change without a trace.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Mapping
from functools import lru_cache, partial
from math import gcd
from types import FunctionType, MethodType
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules import module as every
from torch.overrides import _get_current_function_mode_stack
from transformers import PreTrainedConfig

from dexar_fast.model.modules import OFFSETS

SAMPLES = 1024  # of a tensor's elements; all of a smaller one
GOLDEN = 0.618  # of a row from sample to sample: so they fall in all columns
OURS = "dexar_fast"
LIBRARIES = frozenset({OURS, "torch", "transformers", "accelerate", "peft", "bitsandbytes", *sys.stdlib_module_names})
INSTALLED = "-packages"  # in the path of what pip or a distribution installed
OBSERVERS = (f"{OURS}.", "transformers.utils.")  # their hooks come and go, and change nothing
# What transformers notes of its observers and of the prompt that runs, and how it would spread a model over devices.
PASSING = frozenset({"_output_capturing_hooks_installed", "_tp_plan", "_pp_plan", "_ep_plan", "_fsdp_plan", OFFSETS})
HOOKS = ("_forward_pre_hooks", "_forward_hooks")
OF_EVERY_MODULE = PASSING.union(vars(nn.Module()))
ATOMS = frozenset({int, float, bool, str, bytes, type(None), torch.dtype, torch.device})
PLAIN = frozenset({Tensor, nn.Parameter, nn.Buffer})
FUNCTIONS = frozenset({FunctionType, MethodType, partial})

_counter = itertools.count()
_models: WeakKeyDictionary[nn.Module, int] = WeakKeyDictionary()


@torch.no_grad()
def state(model: nn.Module, arguments: Mapping[str, Any] | None = None) -> int:
    """A number that a model gets again only if it computes the same; `arguments` are its forward's, beside inputs.

    The samples are gathered by one cat and one copy for each device and dtype. The model is left as it is.
    """
    reader = Reader(model)
    facts = (_models.setdefault(model, next(_counter)), reader.read(dict(arguments or {})), *reader.modules())
    code = _code(reader.classes)
    if not reader.known or not _is_known(*code) or _is_watched():
        return next(_counter)
    return _number((*facts, *code, reader.samples()))


@lru_cache(maxsize=16)
def _number(facts: tuple[Any, ...]) -> int:
    return next(_counter)


def _code(classes: set[type]) -> tuple[tuple[Any, ...], tuple[str, ...]]:
    """The functions of some classes, of the files that define these, and of torch; and the names of these files."""
    files = tuple({each.__module__ for each in classes})
    owners = [vars(each) for each in classes] + [vars(sys.modules[name]) for name in files if name in sys.modules]
    return tuple([x for own in (*owners, vars(functional)) for x in own.values() if type(x) is FunctionType]), files


@lru_cache(maxsize=16)
def _is_known(functions: tuple[Any, ...], files: tuple[str, ...]) -> bool:
    """Whether all functions are of the files that define the model or of known libraries, or were installed."""
    return all(_home(x) in files or _is_of_library(x) or _is_installed(x) for x in functions)


def _is_installed(code: Any) -> bool:
    package = sys.modules.get(_home(code).partition(".")[0])
    return INSTALLED in str(getattr(package, "__file__", ""))


def _is_of_library(code: Any) -> bool:
    return _home(code).partition(".")[0] in LIBRARIES


def _home(code: Any) -> str:
    """The name of the module that some code comes from."""
    while isinstance(code, partial):
        code = code.func
    return str(getattr(code, "__module__", None) or type(code).__module__)


def _is_watched() -> bool:
    """Whether the user's code watches every torch function or every module."""
    hooks = [*every._global_forward_pre_hooks.values(), *every._global_forward_hooks.values()]
    modes = [type(mode) for mode in _get_current_function_mode_stack()]
    return not all(map(_is_of_library, (*hooks, *modes)))


class Reader:
    """Reads a model's modules as facts that are equal only if the modules are, and takes samples of its tensors.

    Attributes:
        known: False once code of the user's was met, or a tensor or module that cannot be read.
        classes: of the modules that were read.
    """

    def __init__(self, model: nn.Module) -> None:
        self.known = True
        self.classes: set[type] = set()
        self._modules = [model]  # and all that it holds, as they are met
        self._seen = {id(model)}  # of modules and configs
        self._samples: dict[tuple[torch.device, torch.dtype], list[Tensor]] = {}

    def modules(self) -> list[Any]:
        """The facts of every module. This runs at every explanation, and does no more than it must."""
        facts: list[Any] = []
        for module in self._modules:
            own = vars(module)
            if isinstance(module, torch.jit.ScriptModule):  # compiled: its contents cannot be read
                self.known = False
                continue
            facts.append(type(module))
            facts += [
                x if type(x[1]) in ATOMS else self._attribute(x) for x in own.items() if x[0] not in OF_EVERY_MODULE
            ]
            for tensors in (own["_parameters"], own["_buffers"]):
                if tensors:
                    facts += [(name, self._tensor(x)) for name, x in tensors.items() if x is not None]
            for name in HOOKS:
                if own[name]:
                    facts += [self._function(x) for x in own[name].values() if not _home(x).startswith(OBSERVERS)]
            for child in own["_modules"].values():
                self._module(child)
        self.classes = {type(module) for module in self._modules}
        return facts

    def _attribute(self, item: tuple[str, Any]) -> Any:
        return item[0], self.read(item[1])

    def read(self, value: Any) -> Any:
        """The facts of an attribute's value."""
        kind = type(value)
        if kind in ATOMS:
            return value
        if id(value) in self._seen:  # most often a config, slow to read
            return id(value)
        if kind in FUNCTIONS:
            return self._function(value)
        if isinstance(value, dict):
            return tuple([(self.read(name), self.read(x)) for name, x in value.items()])
        if isinstance(value, list | tuple):
            return (kind, *map(self.read, value))
        if isinstance(value, set | frozenset):
            return frozenset(map(self.read, value))
        if isinstance(value, Tensor):
            return self._tensor(value)
        if isinstance(value, nn.Module):
            self._module(value)
        if isinstance(value, PreTrainedConfig):
            self._seen.add(id(value))
            return self.read(object.__getattribute__(value, "__dict__"))  # their own is slow
        return kind, id(value)

    def _module(self, module: nn.Module | None) -> None:
        if module is not None and id(module) not in self._seen:
            self._seen.add(id(module))
            self._modules.append(module)

    def _function(self, code: Any) -> Any:
        """A hook, or what stands in the place of a method."""
        self.known = self.known and _is_of_library(code)
        return _home(code), id(code)

    def _tensor(self, x: Tensor) -> tuple[Any, ...]:
        """Its identity and shape; takes a sample of its numbers."""
        if type(x) not in PLAIN and hasattr(x, "__tensor_flatten__"):  # quantised, or spread over devices
            return id(x), *[self._tensor(getattr(x, name)) for name in x.__tensor_flatten__()[0]]
        if x.is_meta:
            return id(x), x.shape
        if x.layout is not torch.strided or x.is_quantized:  # no elements at addresses
            self.known = False
            return (id(x),)
        count = x.numel()
        if count:
            self._samples.setdefault((x.device, x.dtype), []).append(_some(x, count))
        return id(x), x.data_ptr(), None if x.is_inference() else x._version, x.shape

    def samples(self) -> tuple[Any, ...]:
        """The bytes of all samples, by device and dtype."""
        return tuple(
            (kind, torch.cat(x).view(torch.uint8).cpu().numpy().tobytes()) for kind, x in self._samples.items()
        )


def _some(x: Tensor, count: int) -> Tensor:
    """Up to about SAMPLES of its elements, from all rows and columns; as a view where they are dense."""
    if not x.is_contiguous() and x.mT.is_contiguous():
        x = x.mT
    if x.is_contiguous():
        step = _step(count, x.shape[-1] if x.ndim else 1)
        return x.as_strided(((count - 1) // step + 1,), (step,))
    return x[tuple(slice(None, None, max(1, size // 32)) for size in x.shape)].flatten()


@lru_cache(maxsize=256)
def _step(count: int, width: int) -> int:
    """From sample to sample, for rows of some width. An edit may cover rows or columns, those of a head, say."""
    step = max(1, count // SAMPLES)
    if step > width // 8:
        step += (round(GOLDEN * width) - step) % width
    while gcd(step, width) > 1:
        step += 1
    return step
