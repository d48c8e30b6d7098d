"""One chunk's forward, hooked: in every layer attention output -> leaf -> layer tail -> lens -> VJP -> u -> sums."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from dexar_fast.attribution.gradients import check_gradient, go_on_recording, gradient, own_gradients, reach_others
from dexar_fast.attribution.sums import Sums
from dexar_fast.attribution.tail import Tails
from dexar_fast.backends.operands import Keys, placed, run_of
from dexar_fast.errors import ModelError
from dexar_fast.model.agreement import agreement_of
from dexar_fast.model.attention import Call, Watcher, attendable, check_keys, is_causal, reads_on, watcher
from dexar_fast.model.cache import to_forward, truncate
from dexar_fast.model.decoder import hidden_states
from dexar_fast.model.lens import Outdated
from dexar_fast.model.logits import last_logits
from dexar_fast.model.modules import offsets_kept
from dexar_fast.model.prefill import Prefill, run, with_answer
from dexar_fast.stages import stage

ELSEWHERE = (
    "no longer attends through transformers' AttentionInterface (a forward in the place of its own?): its part would "
    "be left out"
)


@dataclass(frozen=True)
class Plan:
    """What to compute over one sequence of P prompt and T target tokens."""

    prompt: int  # P
    layers: list[int]  # indices among the layers that hold attention
    visual: Tensor  # [N] positions, on the CPU
    text: Tensor  # [P + T or more] bool, on the CPU: True where a position counts as text
    sums: Callable[[], Sums]  # makes what takes the layers of one chunk
    backend: str  # of the tails' element-wise steps
    double_final_norm: bool  # the authors' code norms the last layer's output twice
    inputs: Mapping[str, Any]  # the prompt's
    tails: Tails | None = None  # found before a prompt that runs with its answer

    @property
    def ends_with_image(self) -> bool:
        """Whether the prompt's last token is an image's."""
        return int(self.visual[-1]) == self.prompt - 1


class Pass(Watcher):
    """The hooks that take each layer's VJP inside that layer's own forward."""

    def __init__(self, model: Any, prompt: Prefill, plan: Plan, tails: Tails | None = None) -> None:
        super().__init__(model, agreement_of(model).met, prompt.seen.passed_on)
        self._prompt = prompt
        self._plan = plan
        self._visual = run_of(plan.visual)
        self._text = plan.text.numpy().nonzero()[0]
        self._wanted = {id(prompt.decoder.attentions[i]): i for i in plan.layers}
        self._tails = tails or Tails.of(prompt.decoder, plan.layers, plan.backend)
        self._first = 0  # position of the first of the C explained queries
        self._targets: Tensor  # [C]
        self._whole = prompt.cache is None
        self._runs_prompt = False
        self._sums: Sums
        self._checks = ExitStack()  # hooks on what autograd goes through, removed after the first forward
        self._hidden: Tensor  # [1, Q, d] output of the decoder's last layer, or streams of it
        self._logits: Tensor  # [1, 1, V]
        self._leaf: Tensor  # [1, C, H, D] the layer's attention output
        self._call: Call
        self._attended = -1  # the layer that leaf and call belong to
        self._keys: Keys
        # by the id of a mask, which layers share; the mask is kept alive so that no other gets its id
        self._known_masks: dict[int, tuple[Tensor, Tensor]] = {}
        self._known_keys: dict[tuple[int, torch.device], tuple[Tensor | None, Keys]] = {}
        self._placed: dict[torch.device, tuple[Tensor | slice, Tensor]] = {}

    @contextmanager
    def hooked(self) -> Iterator[Pass]:
        """Hooks the layers for this thread's forwards."""
        decoder = self._prompt.decoder
        token = watcher.set(self)
        try:
            with ExitStack() as stack, self._checks, self._tails.watching(lambda: watcher.get() is self):
                for index in self._plan.layers:
                    stack.callback(decoder.layers[index].register_forward_hook(self._hook(index)).remove)
                    for module in () if self._tails.trusts(index) else decoder.layers[index].modules():
                        hook = module.register_forward_hook(self._check_gradient, with_kwargs=True)
                        self._checks.callback(hook.remove)
                stack.callback(decoder.last.register_forward_hook(self._keep_hidden).remove)
                stack.callback(self.model.register_forward_hook(self._keep_logits).remove)
                for module in self._prompt.seen.last_positions:
                    stack.callback(module.register_forward_pre_hook(self._count_on, with_kwargs=True).remove)
                yield self
        finally:
            watcher.reset(token)

    def chunk(self, first: int, ids: Tensor, size: int) -> Any:
        """One forward of ids[:size], at positions from `first` on; each predicts the next id."""
        truncate(self._prompt.cache, first)
        return self._run(first, ids[1 : size + 1], partial(self._step, ids[None, :size]), None)

    def _step(self, ids: Tensor, cache: Any) -> None:
        passed = to_forward(self.model, cache) | last_logits(self.model)
        self.model(input_ids=ids, use_cache=True, **passed)

    def prompt(self, inputs: Mapping[str, Any], targets: Tensor, known: int = 0) -> Any:
        """The prompt from token `known` on and the first targets [C] in one forward; its last C are explained.

        For a prompt that is still to run, or that ends with an image and runs again: such a token is more than its id.
        """
        truncate(self._prompt.cache, known)
        whole = with_answer(inputs, targets[:-1])
        return self._run(self._plan.prompt - 1, targets, lambda cache: run(self.model, cache, whole, True), known)

    def with_all_before(self, answer: Tensor, done: int, size: int) -> Any:
        """The next tokens of the answer [T] behind those that are done, in one forward with all before them."""
        answer = answer[: done + size]
        whole = with_answer(self._plan.inputs, answer[:-1])
        forward = partial(run, self.model, left=whole, with_logits=True, prompt=self._plan.prompt)
        with offsets_kept(self.model):
            return self._run(self._plan.prompt - 1 + done, answer[done:], forward, 0)

    @torch.no_grad()
    def _run(self, first: int, targets: Tensor, forward: Callable[[Any], Any], known: int | None) -> Any:
        """The sums of the targets [C]; known: the prompt tokens in the cache if the rest runs along, else None."""
        self._first, self._targets = first, targets
        self._runs_prompt = known is not None
        self.explicit_masks = known != 0
        self._sums = self._plan.sums()
        self._known_masks.clear()
        self._known_keys.clear()
        with stage("chunk forward"):
            forward(self._prompt.cache)
        self._checks.close()
        with stage("checks"):
            self._check()
        with stage("transfer"):
            return self._sums.attribution(first + len(targets))

    def _check(self) -> None:
        """Raises Outdated if the model does not compute what was found about it."""
        lens = self._prompt.decoder.lens
        hidden = lens.last(self._hidden, len(self._targets))
        normed = lens.norm(hidden)
        self._tails.settle(hidden, normed)
        try:
            lens.check(normed, self._logits, self._targets)
        except ModelError as error:
            raise Outdated(str(error)) from error

    def _keep_hidden(self, module: nn.Module, args: Any, output: Any) -> None:
        if watcher.get() is self:
            self._hidden = hidden_states(output).detach()

    def _keep_logits(self, module: nn.Module, args: Any, output: Any) -> None:
        if watcher.get() is self:
            self._logits = output.logits[:, -1:].detach()

    def _count_on(self, module: nn.Module, args: Any, kwargs: dict[str, Any]) -> Any:
        """Counts positions on from that of the last prompt token, as generate() does."""
        if watcher.get() is not self or (self._runs_prompt and not self._whole):
            return None
        last, prompt = self._prompt.seen.last_positions[module], self._plan.prompt
        if self._whole:
            own = kwargs.get("position_ids")
            if own is None:  # the layers' owner counts them itself, one by one
                return None
            steps = torch.arange(1, own.shape[-1] - prompt + 1, device=last.device)
            answer = last[-len(own) :] + steps  # generate() may put an axis of its own before those of M-RoPE
            return args, kwargs | {"position_ids": torch.cat([own[..., :prompt], answer], -1)}
        steps = torch.arange(len(self._targets), device=last.device) + (self._first + 1 - prompt)
        return args, kwargs | {"position_ids": last + steps}

    def mask(self, module: nn.Module, mask: Tensor | None) -> Tensor | None:
        """The last prompt token keeps the mask row of the prefill."""
        row = self._prompt.seen.last_rows.get(id(module))
        if row is None or mask is None or self._whole or self._first >= self._plan.prompt:
            return mask
        if id(mask) not in self._known_masks:
            patched = mask.clone()
            patched[:, :, -len(self._targets), : row.shape[-1]] = row[:, :, 0]
            self._known_masks[id(mask)] = mask, patched
        return self._known_masks[id(mask)][1]

    def attention(self, module: nn.Module, output: Tensor, call: Call) -> Tensor:
        """Makes the attention output of the C queries a leaf and lets autograd record the rest of the layer."""
        if id(module) not in self._wanted:
            return output
        keys = self._first + len(self._targets)
        check_keys(module, call.value, keys)
        before, queries = output.split([output.shape[1] - len(self._targets), len(self._targets)], dim=1)
        self._leaf, self._call, self._attended = queries.detach(), call, self._wanted[id(module)]
        self._keys = self._keys_under(module, call.mask, call.value)
        if self._tails.trusts(self._wanted[id(module)]):
            return output
        self._leaf.requires_grad_()
        torch.set_grad_enabled(True)
        return torch.cat([before, self._leaf], dim=1) if before.shape[1] else self._leaf

    def _keys_under(self, module: nn.Module, mask: Tensor | None, value: Tensor) -> Keys:
        known, keys = (id(mask), value.device), value.shape[2]
        if known not in self._known_keys:
            with stage("masks"):
                self._check_order(module, mask, keys)
                seen = attendable(mask, len(self._targets), keys, value.device)
                visual, text = self._positions(value.device)
                self._known_keys[known] = mask, Keys(visual, text[: self._text.searchsorted(keys)], seen)
        return self._known_keys[known][1]

    def _check_order(self, module: nn.Module, mask: Tensor | None, keys: int) -> None:
        """Raises Outdated, or ModelError, where tokens of the prompt read those of an answer that runs along."""
        if self._whole:
            prompt = self._plan.prompt
            if not is_causal(module, mask, keys) and reads_on(mask, prompt, keys):
                raise ModelError(
                    f"{type(module).__name__} lets tokens of the prompt read the answer, which has to run in one "
                    "forward with it: not supported"
                )
        elif self._prompt.pending is not None and not is_causal(module, mask, keys):
            self._prompt.decoder.causal = False
            raise Outdated("tokens of the prompt read those behind them")

    def _positions(self, device: torch.device) -> tuple[Tensor | slice, Tensor]:
        """Positions of the visual keys and of the whole sequence's text keys, sent to each device once."""
        if device not in self._placed:
            self._placed[device] = placed(self._visual, device), torch.from_numpy(self._text).to(device)
        return self._placed[device]

    def _hook(self, index: int) -> Callable[[nn.Module, Any, Any], Any]:
        norm_twice = self._plan.double_final_norm and index == len(self._prompt.decoder.layers) - 1

        def hook(module: nn.Module, args: Any, output: Any) -> Any:
            if watcher.get() is not self:
                return output
            if self._attended != index:
                raise ModelError(f"decoder layer {index} ({type(module).__name__}) {ELSEWHERE}")
            hidden = hidden_states(output)
            with stage("VJP"):
                u = self._vjp(index, hidden, norm_twice)
            with stage("scoring"):
                self._sums.layer(u[0], self._call, self._keys)
            return (hidden.detach(), *output[1:]) if isinstance(output, tuple) else hidden.detach()

        return hook

    def _check_gradient(self, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        """Kernels for quantised weights may have no backward: the gradient through them would silently be missing."""
        if watcher.get() is self and torch.is_grad_enabled() and isinstance(output, Tensor):
            check_gradient(module, args, kwargs, output)

    def _vjp(self, index: int, hidden: Tensor, norm_twice: bool) -> Tensor:
        """u = d o[v_t] / d (attention output at p_t) of every query at once: [1, C, H, D]."""
        if self._tails.trusts(index):
            return self._tails.vjp(index, hidden, self._leaf, self._targets, norm_twice)
        u = self._recorded_vjp(index, hidden, norm_twice)
        if hidden.ndim > 3:  # no tail is known for streams
            return u
        return self._tails.judged(index, hidden, self._leaf, self._targets, norm_twice, u)

    def _recorded_vjp(self, index: int, hidden: Tensor, norm_twice: bool) -> Tensor:
        """The same by autograd, through the graph that the layer recorded."""
        decoder, lens = self._prompt.decoder, self._prompt.decoder.lens
        go_on_recording(hidden, decoder.layers[index])
        normed = lens.norm(lens.last(hidden, len(self._targets)))
        if norm_twice:
            _check_norms_twice(decoder.layers[index], hidden, normed)
            normed = lens.norm(normed)
        logits = lens.logits(normed, self._targets)
        check_gradient(lens.head, (normed,), {}, logits)
        if self._mixes(index, logits):
            u = own_gradients(logits, self._leaf)
        else:
            u = gradient(logits, self._leaf, decoder.layers[index])
        torch.set_grad_enabled(False)
        return u

    def _mixes(self, index: int, logits: Tensor) -> bool:
        """Whether queries reach each other behind a layer's attention, as through a convolution; found on first use."""
        decoder, queries = self._prompt.decoder, len(logits)
        if not self._tails.knows(index) and queries > decoder.apart.get(index, 1) and index not in decoder.mixing:
            decoder.apart[index] = queries
            if reach_others(logits, self._leaf):
                decoder.mixing.add(index)
        return index in decoder.mixing


def _check_norms_twice(layer: nn.Module, hidden: Tensor, normed: Tensor) -> None:
    """Raises ModelError where the final norm cannot read what it gave."""
    if hidden.ndim > normed.ndim or hidden.shape[-1] != normed.shape[-1]:
        raise ModelError(
            f"{type(layer).__name__} hands on several streams, which the model puts together once, before its final "
            "norm: mode='official', which norms twice, is not defined there"
        )
