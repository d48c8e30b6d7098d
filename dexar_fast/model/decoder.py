"""The text decoder of a model, as `tracer` finds it in one forward, not by family, and what a prompt shows of it.

A decoder layer is the member of a ModuleList that holds a module which attends through the AttentionInterface.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import reduce
from typing import Any

from torch import Tensor, nn
from torch.nn.utils.parametrize import ParametrizationList

from dexar_fast.model.agreement import agreement_of
from dexar_fast.model.attention import Side, Watcher, watcher
from dexar_fast.model.lens.program import LogitLens


@dataclass(eq=False)
class Decoder:
    """Its calls of attention, in order: the layer that holds each, the module that attends; the logit lens behind them.

    A layer with cross-attention, too, is there twice, and a layer that runs several times so often.
    """

    layers: list[nn.Module]
    attentions: list[nn.Module]
    lens: LogitLens
    causal: bool  # no token of the traced prompt could read a later one
    last: nn.Module  # its output is the lens's input
    places: dict[str, nn.Module]  # each of these modules by its name in the model
    heads: list[int] = field(default_factory=list)  # of each layer, where they were counted
    indices: list[int] = field(default_factory=list)  # of each among all layers of the decoder
    total: int = 0  # layers of the decoder, those without attention, too
    trusted_tails: dict[int, Any] = field(default_factory=dict)  # by layer: see attribution.tails.trust.Tails
    rerun: dict[nn.Module, bool] = field(default_factory=dict)  # of layers that were: whether they gave the same
    reach: dict[int, tuple[int, int]] = field(default_factory=dict)  # by call: see attribution.calls.gradients
    sides: list[Side] | None = None  # whose keys each call reads; None: all their own sequence's
    begins: bool | None = None  # whether the first layers of a generate() tell how it begins; None: not tried
    by_hand: list[nn.Module] = field(default_factory=list)  # those that write their attention out

    def renew(self, found: Decoder) -> None:
        """Takes the lens of a later forward of the model, and forgets the tails that agreed with the old one."""
        found.lens.axis = self.lens.axis  # of a single token every axis may be that of positions
        self.lens, self.last, self.places = found.lens, found.last, found.places
        self.trusted_tails.clear()
        self.rerun.clear()

    def is_of(self, model: nn.Module) -> bool:
        """Whether its modules are where they were: users may replace a head or a layer, or wrap it in an adapter."""
        try:
            return all(_at(model, name) is module for name, module in self.places.items())
        except (KeyError, AttributeError):
            return False


class PromptWatcher(Watcher):
    """Remembers from the prompt's own forward what its last token could attend to in each layer, and its position.

    A later pass runs the last prompt token again as its first query. A bidirectional prefix may read further than that
    pass's causal mask would let it (PaliGemma 2: past the sliding window). M-RoPE counts on from the last prompt
    token's position, which the pass cannot tell from the number of keys. In a batch the first rows count (beams: one).
    """

    def __init__(self, model: nn.Module, length: int, inputs: Iterable[str], rows: int = 1) -> None:
        super().__init__(model, agreement_of(model).met, inputs)
        self.logits: Tensor | None = None  # [V] of the last token, where they were seen
        self._rows = rows  # B
        self._length = length  # how many of the P tokens run: the first forward of so many is the prompt's
        self.last_rows: dict[int, Tensor] = {}  # by id of the attention module: [B, 1, 1, P]
        self.last_positions: dict[nn.Module, Tensor] = {}  # by the module that holds the layers: [..., B, 1]

    def mask(self, module: nn.Module, mask: Tensor | None) -> Tensor | None:
        if mask is not None and mask.shape[-2] == self._length and id(module) not in self.last_rows:
            self.last_rows[id(module)] = mask[: self._rows, :, -1:].clone()
        return mask

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watches this thread's forwards inside the block."""
        token = watcher.set(self)
        try:
            with ExitStack() as stack:
                for module in _list_holders(self.model):
                    hook = module.register_forward_pre_hook(self._remember_position, with_kwargs=True)
                    stack.callback(hook.remove)
                yield
        finally:
            watcher.reset(token)

    def _remember_position(self, module: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        positions = kwargs.get("position_ids")
        if module in self.last_positions or watcher.get() is not self:
            return
        if positions is not None and positions.shape[-1] == self._length:
            self.last_positions[module] = positions[..., : self._rows, -1:].clone()


def _at(model: nn.Module, name: str) -> Any:
    """The module of a name; get_submodule() takes several times as long. Raises KeyError, AttributeError."""
    return reduce(lambda module, part: module._modules[part], name.split("."), model)  # type: ignore[arg-type,return-value]


def first_layer(model: nn.Module, decoder: Decoder) -> nn.Module:
    """The first of all layers, whether or not it holds attention."""
    name = next(name for name, module in decoder.places.items() if module is decoder.layers[0])
    first: nn.Module = next(iter(model.get_submodule(name.rpartition(".")[0]).children()))
    return first


def hidden_states(output: Any) -> Any:
    """The hidden states, of [1, C, d] or several streams, that a decoder layer returns: alone, or first in a tuple."""
    return output[0] if isinstance(output, tuple) else output


def _list_holders(model: nn.Module) -> list[nn.Module]:
    return [m for m in model.modules() if any(map(is_list, m.children()))]


def is_list(module: nn.Module) -> bool:
    """Whether it is a list of layers: torch also keeps what parametrizes a weight in a ModuleList."""
    return isinstance(module, nn.ModuleList) and not isinstance(module, ParametrizationList)
