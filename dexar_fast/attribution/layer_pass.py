"""One chunk's forward, hooked: in every layer attention output -> leaf -> layer tail -> lens -> VJP -> u -> sums."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from dexar_fast.attribution.calls import order, positions
from dexar_fast.attribution.calls.gradients import Attended, CallGradients, Run
from dexar_fast.attribution.calls.plan import Plan
from dexar_fast.attribution.calls.rows import Answers, Part, Rows, Span
from dexar_fast.attribution.calls.turns import Turns
from dexar_fast.attribution.forwards.last_rows import narrowing, wanting
from dexar_fast.attribution.gradients import check_gradient
from dexar_fast.attribution.tails.trust import Tails
from dexar_fast.errors import ModelError
from dexar_fast.model.agreement import agreement_of
from dexar_fast.model.attention import Call, Side, Watcher, watcher
from dexar_fast.model.cache import to_forward, truncate
from dexar_fast.model.decoder import hidden_states
from dexar_fast.model.elsewhere import begun
from dexar_fast.model.elsewhere.handwritten import by_hand
from dexar_fast.model.lens.program import Outdated
from dexar_fast.model.logits import last_logits
from dexar_fast.model.masks import is_causal
from dexar_fast.model.modules import offsets_aside, offsets_kept
from dexar_fast.model.prefill import Prefill, run, with_answer
from dexar_fast.stages import stage

ELSEWHERE = "no longer attends where it did (a forward in the place of its own?): its part would be left out"


class Pass(Watcher):
    """The hooks that take each layer's VJP inside that layer's own forward.

    Args:
        plans: of each row of the batch; they differ in their keys alone.
    """

    def __init__(self, model: Any, prompt: Prefill, plans: Sequence[Plan], tails: Tails | None = None) -> None:
        super().__init__(model, agreement_of(model).met, prompt.seen.passed_on)
        self._prompt = prompt
        self._plan = plan = plans[0]
        self._turns = Turns(prompt.decoder)
        by_tails = plan.layers if plan.differentiates and plan.against is None else []
        self._tails = tails or Tails.of(prompt.decoder, by_tails, plan.backend)
        self._gradients = CallGradients(prompt.decoder, self._tails, plan.double_final_norm)
        self._rows = Rows(plans, cached=prompt.cache is not None)
        self._first = 0  # position of the first of the C explained queries
        self._targets: Tensor  # [B, C]
        self._runs_prompt = False
        self._checks = ExitStack()  # hooks on what autograd goes through, removed after the first forward
        self._states: Tensor | None = None  # [B, C, n, d] of earlier layers, where the lens of a layer reads such
        self._hidden: Tensor  # [B, Q, d] output of the decoder's last layer, or streams of it
        self._logits: Tensor  # [1, 1, V]
        self._attended: dict[int, Attended] = {}  # by call, until its layer has run
        # by the id of a mask, which layers share; the mask is kept alive so that no other gets its id
        self._known_masks: dict[int, tuple[Tensor, Tensor]] = {}

    @contextmanager
    def hooked(self) -> Iterator[Pass]:
        """Hooks the layers for this thread's forwards."""
        decoder = self._prompt.decoder
        token = watcher.set(self)
        try:
            with ExitStack() as stack, self._checks, self._tails.watching(lambda: watcher.get() is self, self._read):
                stack.enter_context(by_hand(decoder.by_hand))
                stack.enter_context(narrowing(decoder) if self._tails.trusts_last(decoder) else nullcontext())
                for layer, calls in self._calls_of_layers().items():
                    stack.callback(layer.register_forward_hook(self._hook, with_kwargs=True).remove)
                    for module in layer.modules() if any(map(self._records, calls)) else ():
                        hook = module.register_forward_hook(self._check_gradient, with_kwargs=True)
                        self._checks.callback(hook.remove)
                stack.callback(decoder.last.register_forward_hook(self._keep_hidden, with_kwargs=True).remove)
                stack.callback(self.model.register_forward_hook(self._keep_logits).remove)
                for module in self._prompt.seen.last_positions:
                    stack.callback(module.register_forward_pre_hook(self._count_on, with_kwargs=True).remove)
                yield self
        finally:
            watcher.reset(token)

    def _calls_of_layers(self) -> dict[nn.Module, list[int]]:
        """The calls to be explained, by the layer that holds them."""
        found: dict[nn.Module, list[int]] = {}
        for index in self._plan.layers:
            found.setdefault(self._prompt.decoder.layers[index], []).append(index)
        return found

    def chunk(self, answers: Answers, done: int, size: int) -> list[Any]:
        """One forward of the next tokens behind those that are done; each predicts the one behind it."""
        first = self._rows.prompt - 1 + done
        ids = answers.ids[:, done : done + size + 1]
        truncate(self._prompt.cache, first)
        forward = partial(self._step, ids[:, :-1], first + size)
        return self._run(first, ids[:, 1:], forward, None, self._rows.behind(answers, done, size))

    def _step(self, ids: Tensor, keys: int, cache: Any) -> None:
        passed = to_forward(self.model, cache) | last_logits(self.model) | self._rows.attention_mask(keys, ids.device)
        with offsets_aside(self.model) if self._prompt.seen.last_positions else nullcontext():  # `_count_on` counts
            self.model(input_ids=ids, use_cache=True, **passed)

    def prompt(self, inputs: Mapping[str, Any], targets: Tensor, known: int = 0) -> list[Any]:
        """The prompt from token `known` on and the first targets [C] in one forward; its last C are explained.

        For a prompt that is still to run, or that ends with an image and runs again: such a token is more than its id.
        """
        truncate(self._prompt.cache, known)
        whole = with_answer(inputs, targets[:-1])
        return self._alone(0, targets, lambda cache: run(self.model, cache, whole, True), known)

    def with_all_before(self, answer: Tensor, done: int, size: int, cache: Any = None) -> list[Any]:
        """The next tokens of the answer [T] behind those that are done, in one forward with all before them.

        Args:
            cache: an empty one, which takes them all; None: they leave nothing behind.
        """
        answer = answer[: done + size]
        whole = (with_answer if self._prompt.begun is None else begun.with_answer)(self._plan.inputs, answer[:-1])
        forward = partial(run, self.model, cache, whole, True, self._plan.prompt)
        with offsets_kept(self.model):
            return self._alone(done, answer[done:], lambda _: forward(), 0)

    def behind(self, cache: Any, answer: Tensor, done: int, size: int) -> list[Any]:
        """The same over a cache that holds all before them, and goes on from there; some are done."""
        ids = answer[done - 1 : done + size]
        step = partial(self._step, ids[None, :-1], self._plan.prompt - 1 + done + size, cache)
        return self._alone(done, ids[1:], lambda _: step(), None)

    @property
    def last_logits(self) -> Tensor:
        """[V] at the last of the queries."""
        return self._logits[0, -1]

    @property
    def _whole(self) -> bool:
        """Whether the prompt runs with the answer so far."""
        return self._prompt.cache is None and self._runs_prompt

    def _alone(self, done: int, targets: Tensor, forward: Callable[[Any], Any], known: int | None) -> list[Any]:
        """The sums of the targets [C] of one row, of whose prompt so many tokens are in the cache."""
        first = self._plan.prompt - 1 + done
        span = Span(0, slice(0, first + len(targets)), slice(0, len(targets)))
        return self._run(first, targets[None], forward, known, [span])

    @torch.no_grad()
    def _run(
        self, first: int, targets: Tensor, forward: Callable[[Any], Any], known: int | None, spans: Sequence[Span]
    ) -> list[Any]:
        """The sums of each row's targets [B, C]; known: the prompt tokens in the cache if the rest runs along."""
        self._first, self._targets = first, targets
        self._runs_prompt = known is not None
        self.explicit_masks = known != 0
        self._rows.begin(spans, first + self._columns, targets.device)
        self._turns.begin()
        self._known_masks.clear()
        queries = self._columns if known is None else first + self._columns - known
        with stage("chunk forward"), wanting(self._explained(queries), queries):
            forward(self._prompt.cache)
        with stage("scoring"):
            self._rows.settle()
        self._checks.close()
        with stage("checks"):
            self._check()
        with stage("transfer"):
            return self._rows.attributions()

    @property
    def _against(self) -> Tensor | None:
        """[C], beside the targets."""
        done = self._first + 1 - self._plan.prompt
        return None if self._plan.against is None else self._plan.against[done : done + self._columns]

    @property
    def _columns(self) -> int:
        return self._targets.shape[1]

    def _explained(self, queries: int) -> Tensor | slice:
        """Which C of the queries of a forward."""
        return slice(queries - self._columns, queries)

    def _read(self, rows: Tensor) -> Tensor:
        """Of what a module took or gave, [B, Q, d], the positions that end with the C explained ones."""
        return rows

    def _check(self) -> None:
        """Raises Outdated if the model does not compute what was found about it."""
        lens = self._prompt.decoder.lens
        hidden = lens.last(self._hidden, self._columns)
        normed = lens.norm(hidden, self._states).flatten(0, 1)[None]
        self._tails.settle(hidden, normed)
        self._gradients.settle()
        try:
            lens.check(normed, self._logits, self._targets.flatten())
        except ModelError as error:
            raise Outdated(str(error)) from error

    def _keep_hidden(self, module: nn.Module, args: Any, kwargs: dict[str, Any], output: Any) -> None:
        if watcher.get() is self:
            self._keep_states(module, args, kwargs)
            self._hidden = self._read(hidden_states(output).detach())

    def _keep_states(self, layer: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        beside = self._prompt.decoder.lens.beside
        if beside is not None:
            self._states = self._read(beside.after(layer, args, kwargs).detach())[:, -self._columns :]

    def _keep_logits(self, module: nn.Module, args: Any, output: Any) -> None:
        if watcher.get() is self:
            self._logits = output.logits[-1:, -1:].detach()

    def _count_on(self, module: nn.Module, args: Any, kwargs: dict[str, Any]) -> Any:
        """Counts positions on from that of the last prompt token, as generate() does."""
        if watcher.get() is not self or (self._runs_prompt and not self._whole):
            return None
        last, prompt = self._prompt.seen.last_positions[module], self._rows.prompt
        if self._whole:
            return args, kwargs | positions.of_whole(last, prompt, kwargs)
        return args, kwargs | positions.of_chunk(last, self._first + 1 - prompt, self._columns)

    def mask(self, module: nn.Module, mask: Tensor | None) -> Tensor | None:
        """The last prompt token keeps the mask row of the prefill."""
        row = self._prompt.seen.last_rows.get(id(module))
        if row is None or mask is None or self._whole or self._first >= self._rows.prompt:
            return mask
        if id(mask) not in self._known_masks:
            patched = mask.expand(max(len(mask), len(row)), -1, -1, -1).clone()
            patched[:, :, -self._columns, : row.shape[-1]] = row[:, :, 0]
            self._known_masks[id(mask)] = mask, patched
        return self._known_masks[id(mask)][1]

    def attention(self, module: nn.Module, output: Tensor, call: Call) -> Tensor:
        """Makes the attention output of the C queries a leaf and lets autograd record the rest of the layer."""
        index = self._turns.of_attention(module)
        if index not in self._plan.layers:
            return output
        before, queries = output.split([output.shape[1] - self._columns, self._columns], dim=1)
        follows = queries.requires_grad  # an earlier call of the layer, which its u leads through
        leaf = queries if follows else queries.detach()
        self._attended[index] = Attended(output, leaf, self._parts_of(index, module, call))
        if not self._records(index, before.shape[1] > 0):
            return output
        if not follows:
            leaf.requires_grad_()
        torch.set_grad_enabled(True)
        return torch.cat([before, leaf], dim=1) if before.shape[1] else leaf

    def _records(self, index: int, whole: bool = False) -> bool:
        """Whether autograd records the layer's tail behind a call; whole: as of `Run`."""
        return self._plan.differentiates and self._gradients.records(index, whole)

    def _parts_of(self, index: int, module: nn.Module, call: Call) -> list[Part]:
        sides = self._prompt.decoder.sides
        side = Side.OWN if sides is None else sides[index]
        return self._rows.parts(module, call, side, self._check_order)

    def _check_order(self, module: nn.Module, call: Call) -> None:
        """Raises Outdated, or ModelError, where tokens of the prompt read those of an answer that runs along."""
        if self._whole:
            order.check_prompt(module, call, self._plan.prompt)
        elif self._prompt.pending is not None and not is_causal(module, call.mask, call.value.shape[2]):
            self._prompt.decoder.causal = False
            raise Outdated("tokens of the prompt read those behind them")

    def _hook(self, module: nn.Module, args: Any, kwargs: dict[str, Any], output: Any) -> Any:
        if watcher.get() is not self:
            return output
        calls = [index for index in self._turns.of_layer(module) if index in self._plan.layers]
        if not calls:
            return output
        hidden = hidden_states(output)
        self._keep_states(module, args, kwargs)
        attended = {index: self._taken(index, module) for index in calls}
        found = {index: each.leaf for index, each in attended.items()}
        if self._plan.differentiates:
            with stage("VJP"):
                run = Run(
                    module, args, kwargs, self._read(hidden), attended, self._targets, self._states, self._against
                )
                found = self._gradients.of(run)
        with stage("scoring"):
            for index, u in found.items():
                self._rows.score(u, attended[index].parts)
        return (hidden.detach(), *output[1:]) if isinstance(output, tuple) else hidden.detach()

    def _taken(self, index: int, layer: nn.Module) -> Attended:
        """A call of a layer that has run."""
        attended = self._attended.pop(index, None)
        if attended is None:
            raise ModelError(f"decoder layer {index} ({type(layer).__name__}) {ELSEWHERE}")
        return attended

    def _check_gradient(self, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        """Kernels for quantised weights may have no backward: the gradient through them would silently be missing."""
        if watcher.get() is self and isinstance(output, Tensor):
            check_gradient(module, args, kwargs, output)
