"""Watches the first forward of a model, and finds its decoder: layers, what attends in them, the lens behind them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn

from dexar_fast.errors import ModelError
from dexar_fast.model.attention import Call, check_keys, watcher
from dexar_fast.model.cache import cache_in
from dexar_fast.model.decoder import Decoder, PromptWatcher, hidden_states, is_list
from dexar_fast.model.kinds import head_of
from dexar_fast.model.lens.beside import Visit
from dexar_fast.model.lens.program import LogitLens
from dexar_fast.model.lens.tracing import LensTracer
from dexar_fast.model.masks import is_causal


class DecoderTracer(PromptWatcher):
    """Finds the decoder; `decoder` and `logits` hold what was found once the forward has ended."""

    def __init__(self, model: nn.Module, length: int, inputs: Iterable[str]) -> None:
        super().__init__(model, length, inputs)
        self.decoder: Decoder | None = None
        self._lens = LensTracer(head_of(model))
        self._recording = ExitStack()  # holds the lens while it records
        self._attended: list[nn.Module] = []
        self._heads: list[int] = []
        self._causal = True
        self._keys = 0  # how many the first of them read
        self._runs: Counter[nn.Module | None] = Counter()  # of each layer: some run several times
        self._seen: set[tuple[nn.Module, int]] = set()  # what attended, and in which run of its layer
        self._given: dict[nn.Module, tuple[Any, Any]] = {}  # the arguments of modules that are running
        self._lists = [module for module in model.modules() if is_list(module)]
        self._of_layers: set[nn.Module] = set()  # the members of those lists that hold attention
        self._last: nn.Module  # the one of these that ran last
        self._visits: list[Visit] = []  # of those that got states of earlier ones

    def attention(self, module: nn.Module, output: Tensor, call: Call) -> Tensor:
        if self.decoder is None and not self._is_over_depth(call):
            visit = module, self._runs[self._layer_around(module)]
            if visit not in self._seen:
                self._record(module, call)
                self._seen.add(visit)
        return output

    def _record(self, module: nn.Module, call: Call) -> None:
        """Called at the first call of a module that attends in each run of its layer."""
        if module not in self._attended:
            self._met_call(module, call)
            self._of_layers.update(*(each.children() for each in self._lists if _holds(each, module)))
        self._attended.append(module)
        self._heads.append(call.query.shape[1])

    def _layer_around(self, module: nn.Module) -> nn.Module | None:
        """The layer that runs and holds the module."""
        return next((each for each in reversed(self._given) if _holds(each, module)), None)

    def _is_over_depth(self, call: Call) -> bool:
        """Whether each token attends by itself, to states of its own: then tokens stand where heads do."""
        return call.query.shape[1] == self._length != call.query.shape[2]

    def _met_call(self, module: nn.Module, call: Call) -> None:
        """Called at the first call of each module that attends."""
        self._keys = self._keys or call.value.shape[2]
        check_keys(module, call.value, self._keys)
        self._causal = self._causal and is_causal(module, call.mask, call.value.shape[2])

    @contextmanager
    def watching(self) -> Iterator[None]:
        layers, head = list_members(self.model), [each for each in [self._lens.head] if each is not None]
        modules = dict.fromkeys([*layers, *head, *_outermost(self.model, [*layers, *head])])  # parts may share one
        with super().watching(), self._recording, ExitStack() as stack:  # Ctrl-C skips `_finish`
            for module in modules:
                enter = module.register_forward_pre_hook(self._enter, prepend=True, with_kwargs=True)
                stack.callback(enter.remove)
                stack.callback(module.register_forward_hook(self._leave).remove)
            stack.callback(self.model.register_forward_pre_hook(self._begin).remove)
            stack.callback(self.model.register_forward_hook(self._finish, always_call=True).remove)
            yield

    def _mine(self) -> bool:
        return watcher.get() is self and self.decoder is None

    def _enter(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        """Runs before the user's hooks: a later call of the module runs them, too."""
        if self._mine():
            self._given[module] = args, kwargs
            self._runs[module] += 1
            self._lens.pause()

    def _leave(self, module: nn.Module, args: Any, output: Any) -> None:
        if not self._mine():
            return
        self._lens.resume()
        given = self._given.pop(module)
        if module not in self._of_layers:
            self._lens.record(module, *given, output)
        elif isinstance(hidden_states(output), Tensor):
            self._lens.restart(hidden_states(output))
            self._last = module
            visit = Visit.of(module, *given, self._length)
            self._visits += [] if visit is None else [visit]

    def _begin(self, model: nn.Module, args: Any) -> None:
        """The lens sees every tensor function from here to `_finish`, and no others: generate() calls thousands."""
        if self._mine():
            self._recording.enter_context(self._lens)

    def _finish(self, model: nn.Module, args: Any, output: Any) -> None:
        if not self._mine():
            return
        self._recording.close()
        if output is None:  # the forward raised
            return
        if not self._attended:
            raise ModelError(
                f"{type(model).__name__} has no text decoder that attends through transformers' AttentionInterface: "
                "dexar_fast needs a causal language model whose attention modules call "
                "ALL_ATTENTION_FUNCTIONS[config._attn_implementation]"
            )
        _check_all_attend(model, self._attended, cache_in(output))
        self.logits = output.logits[0, -1]
        self.decoder = self._found(model, output.logits)

    def _found(self, model: nn.Module, logits: Tensor) -> Decoder:
        lens = self._traced(logits)
        layers, members = _layers_of(model, self._attended)
        held = {id(module) for module in [*layers, *self._attended, *lens.modules, self._last]}
        places = {name: module for name, module in model.named_modules() if id(module) in held}
        return Decoder(
            layers,
            self._attended,
            lens,
            self._causal,
            self._last,
            places,
            heads=self._heads,
            indices=[next(i for i, member in enumerate(members) if member is layer) for layer in layers],
            total=len(members),
        )

    def _traced(self, logits: Tensor) -> LogitLens:
        """The lens of the forward that gave these logits, tried without us looking on."""
        token = watcher.set(None)
        try:
            return self._lens.finish(logits, self._length, self._visits)
        finally:
            watcher.reset(token)
            self._visits.clear()


def _check_all_attend(model: nn.Module, attended: list[nn.Module], cache: Any) -> None:
    """Raises ModelError if more layers made keys than were seen attending."""
    layers = [layer for layer in getattr(cache, "layers", ()) if hasattr(layer, "get_seq_length")]
    made = sum(layer.get_seq_length() > 0 for layer in layers)
    if made > len(attended):
        raise ModelError(
            f"{made - len(attended)} of the {made} layers with keys of {type(model).__name__} attend by themselves, "
            "not through transformers' AttentionInterface (a forward in their place?), and would be left out"
        )


def _holds(outer: nn.Module, inner: nn.Module) -> bool:
    return any(module is inner for module in outer.modules())


def list_members(model: nn.Module) -> list[nn.Module]:
    return [member for module in model.modules() if is_list(module) for member in module.children()]


def _outermost(model: nn.Module, layers: list[nn.Module]) -> list[nn.Module]:
    """The largest modules that hold no layer and lie in none: embeddings, norms, the head."""
    inside = {id(module) for layer in layers for module in layer.modules()}
    found: list[nn.Module] = []

    def visit(module: nn.Module) -> None:
        for child in module.children():
            if id(child) in inside:
                continue
            if any(id(descendant) in inside for descendant in child.modules()):
                visit(child)
            else:
                found.append(child)

    visit(model)
    return found


def _layers_of(model: nn.Module, attentions: list[nn.Module]) -> tuple[list[nn.Module], list[nn.Module]]:
    """The layers that hold these, and all members of the lists that hold those."""
    names = {id(module): name for name, module in model.named_modules()}
    modules = dict(model.named_modules())
    layers = [_layer_of(names[id(attention)], modules) for attention in attentions]
    if len(set(layers)) < len(set(attentions)):
        raise ModelError(
            f"{type(model).__name__} has decoder layers that attend more than once (cross-attention): not supported"
        )
    wanted = set(layers)
    return layers, [
        m for each in model.modules() if is_list(each) and wanted & {*each.children()} for m in each.children()
    ]


def _layer_of(name: str, modules: dict[str, nn.Module]) -> nn.Module:
    path = name.split(".")
    for end in range(len(path), 0, -1):
        if is_list(modules[".".join(path[: end - 1])]):
            return modules[".".join(path[:end])]
    raise ModelError(f"{name} attends outside a ModuleList of decoder layers: dexar_fast cannot tell its layer")
