"""u, V and the keys that each token of an answer reads, layer by layer, from the one pass of METHOD.md section 7."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dexar_fast.attribution import engine
from dexar_fast.attribution.calls.plan import Plan
from dexar_fast.attribution.calls.rows import Answers
from dexar_fast.attribution.tails.trust import Tails
from dexar_fast.backends.eager import products
from dexar_fast.errors import NumericalError
from dexar_fast.lowlevel.collected import Chunk, Collected
from dexar_fast.lowlevel.lent import Lent, layers_of, lent
from dexar_fast.model.elsewhere import begun, written
from dexar_fast.model.memory import default_chunk
from dexar_fast.model.prefill import Prefill, Prefix, postponed, prefill, takes_answer
from dexar_fast.prompt import inputs as checks


@dataclass(frozen=True)
class LayerGradients:
    """One layer's part in T tokens of an answer, over the S keys of prompt and answer that its queries had."""

    layer: int  # as `layers` counts
    u: Tensor  # [T, H, D] d o_l[v_t] / d (attention output of head h at p_t)
    value: Tensor  # [H_kv, S, D] what the attention product multiplied, in the model's dtype
    reads: Tensor  # [T, S] bool: which keys p_t may read; [T, H, S] where heads read different ones
    numbers: Tensor | None  # [S] where keys stand beside the decoder's own (METHOD.md section 3): the number of each

    def gradient(self, tokens: slice = slice(None)) -> Tensor:
        """G[t, h, j] = relu(<u[t, h], V[k(h), j]>), 0 for keys that p_t may not read: made when it is asked for.

        Args:
            tokens: which of the T; all of them take T H S numbers.
        Returns:
            [T', H, S], float32 or better, on the layer's device.
        """
        dtype = torch.promote_types(self.u.dtype, torch.float32)
        found = products(self.u[tokens].to(dtype), self.value.to(dtype)).relu_().transpose(0, 1)
        reads = self.reads[tokens] if self.reads.ndim == 3 else self.reads[tokens, None]
        return found.masked_fill_(~reads, 0)


def gradients(
    model: Any, inputs: Mapping[str, Any], target_ids: Any, layers: Sequence[int] | None = None
) -> Iterator[LayerGradients]:
    """u_l = d o_l[v_t] / d (attention output at p_t) and V_l of every layer l: all that DEX-AR's G is made of.

    One pass over the answer (METHOD.md sections 2 and 7) has run when this returns; the layers are then handed out one
    after another, and let go. What is held is u, V and a bit for each (token, key): no G, no attention matrix. The
    model is left as it was.

    Args:
        model: as `attention_rows` takes it; of text alone, too: then o_l is the logit lens of a language model.
        inputs: of the prompt of P tokens, batch 1, as the processor or tokenizer returns them.
        target_ids: [T] ids of the answer: a tensor, an array or a list.
        layers: which of the layers that hold attention, negative from the end; None is all of them.
    Returns:
        The layers, ascending; S = P + T - 1, as the last token is read by none.
    Raises:
        InputError: layers or ids that the model lacks, a batch, padding, inputs that the model refuses.
        ModelError: the decoder cannot be explained. OutOfMemoryError: not even one token at a time fits.
        NumericalError: NaN or infinity in a layer, when its turn comes.
    """
    targets = checks.as_ids(target_ids)
    with lent(model, inputs) as given:
        checks.check_targets(given.model, targets)
        prompt = _prompt(given, targets, layers)
        given.keep(prompt.decoder)
        checks.check_scored(targets, prompt.decoder.lens.rows)
        chosen = layers_of(layers, prompt.decoder)
        found = _passed(given, prompt, targets.long(), chosen)
        written.check(given.model, given.inputs, given.loan, prompt)
    return _handed_out(chosen, found)


def _prompt(given: Lent, targets: Tensor, layers: Sequence[int] | None) -> Prefill:
    """The prompt's prefill: postponed to the answer's forward where no layer needs a graph and all fits."""
    model, inputs, decoder = given.model, given.inputs, given.known
    if given.elsewhere:
        return begun.begin(model, inputs, decoder)
    checks.check_length(model, inputs["input_ids"].shape[1], len(targets))
    if decoder is not None and takes_answer(inputs, decoder, _visual(given)):
        tails = Tails.of(decoder, layers_of(layers, decoder))
        if tails.trusts_all() and len(targets) <= default_chunk(decoder.layers):
            return postponed(model, inputs, decoder, Prefix(model.config))
    return prefill(model, inputs, decoder, Prefix(model.config))


def _visual(given: Lent) -> Tensor:
    """[N] positions of the prompt's image, on the CPU."""
    return checks.is_visual(given.model, given.inputs["input_ids"][0]).nonzero()[:, 0].cpu()


def _passed(given: Lent, prompt: Prefill, targets: Tensor, layers: list[int]) -> Collected:
    """What the pass over the answer finds of the layers."""
    plan, ids = _plan(given, prompt, len(targets), layers)
    answers = Answers.one(torch.cat([ids[-1:], targets.to(ids)]))
    found = Collected(layers)
    engine.explain(given.model, prompt, [plan], answers, 0, default_chunk(prompt.decoder.layers), found.take)
    return found


def _plan(given: Lent, prompt: Prefill, answer: int, layers: list[int]) -> tuple[Plan, Tensor]:
    """What the pass computes, and the ids [P] before the answer; where no image stands in them, it has no part."""
    start = prompt.begun
    ids = given.inputs["input_ids"][0] if start is None else start.ids.to(start.device)
    length, beside = (len(ids), 0) if start is None else (start.prompt, start.beside)
    plan = Plan(
        prompt=length,
        layers=layers,
        visual=_visual(given) if start is None else start.visual,
        text=torch.zeros(beside + length + answer, dtype=torch.bool, device="cpu"),  # nothing is scored
        sums=Chunk,
        backend="auto",
        double_final_norm=False,
        inputs=given.inputs if start is None else start.inputs,
        beside=beside,
    )
    return plan, ids


def _handed_out(layers: list[int], found: Collected) -> Iterator[LayerGradients]:
    for layer in layers:
        part = LayerGradients(layer, *found.pop(layer))
        if not bool(part.u.isfinite().all() & part.value.isfinite().all()):
            raise NumericalError(f"layer {layer}: NaN or infinity in its gradients or values")
        yield part
