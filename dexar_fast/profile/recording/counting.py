"""The arithmetic and the least memory traffic of each stage, counted operation by operation in one run of its own."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from dexar_fast.stages import Recorder

LOOKUPS = ("embedding", "index", "index_select", "gather")  # these read from a table only what they return
FREE = ("empty", "empty_like", "new_empty", "empty_strided", "detach", "_unsafe_view", "_reshape_alias")


class Counter(TorchDispatchMode):
    """Counts every operation towards the recorder's innermost open stage, autograd's included.

    Attributes:
        flops: of matrix products, convolutions and attention; a multiplication with its addition counts as two.
        bytes: each operation's inputs and outputs once: what must move unless a kernel keeps them between operations.
    """

    def __init__(self, recorder: Recorder) -> None:
        super().__init__()
        self._recorder = recorder
        self.flops: dict[str, int] = defaultdict(int)
        self.bytes: dict[str, int] = defaultdict(int)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        name = func._overloadpacket.__name__
        stage = self._recorder.open[-1] if self._recorder.open else ""
        self.flops[stage] += _flops(func, name, args, kwargs or {}, output)
        if not (func.is_view or name in FREE):
            self.bytes[stage] += _bytes(name, args, kwargs, output)
        return output


def _flops(func: Any, name: str, args: Any, kwargs: dict[str, Any], output: Any) -> int:
    if "scaled_dot_product" in name and "backward" not in name:
        query, key, value = args[:3]
        return 2 * query[..., 0].numel() * key.shape[-2] * (query.shape[-1] + value.shape[-1])
    if func._overloadpacket not in flop_registry:
        return 0
    return int(flop_registry[func._overloadpacket](*args, **kwargs, out_val=output))


def _bytes(name: str, args: Any, kwargs: Any, output: Any) -> int:
    written = _size(output)
    return 2 * written if name in LOOKUPS else written + _size((args, kwargs))


def _size(tree: Any) -> int:
    return sum(leaf.nbytes for leaf in tree_leaves(tree) if isinstance(leaf, Tensor))
