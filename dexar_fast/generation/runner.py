"""One request to an explainer's model: its answer, and the explanation of that."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import asdict, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from dexar_fast.attribution.tails.trust import Tails
from dexar_fast.errors import InputError, NumericalError
from dexar_fast.explanation import Explanation
from dexar_fast.generation import faults
from dexar_fast.generation.arguments import (
    beams,
    check_arguments,
    check_single,
    forward_arguments,
    new_tokens,
    with_tokenizer,
)
from dexar_fast.generation.asked import Asked
from dexar_fast.generation.generate import begun_tokens, generate, generate_begun, written_apart
from dexar_fast.generation.header import doubts, header
from dexar_fast.generation.places.placing import settled_elsewhere
from dexar_fast.generation.planning import check_knobs, check_method, pictured, plan_of
from dexar_fast.generation.result_builder import NONE, ResultBuilder
from dexar_fast.generation.scheduler import AnswerExplainer, Begun, ChunkScheduler
from dexar_fast.generation.setup import Setup
from dexar_fast.generation.stream import Channel, Piece, Stream
from dexar_fast.loading.adapters import check_adapters
from dexar_fast.model.agreement import agreement_of
from dexar_fast.model.cache import goes_back
from dexar_fast.model.decoder import Decoder
from dexar_fast.model.elsewhere import begun, written
from dexar_fast.model.lending.locks import is_borrowed_here
from dexar_fast.model.lending.session import Loan, borrowed
from dexar_fast.model.memory import default_chunk, fitting
from dexar_fast.model.prefill import BegunPrompt, Prefill, Prefix, postponed, prefill, takes_answer
from dexar_fast.model.wanted import Abandoned
from dexar_fast.prompt import inputs
from dexar_fast.prompt.request import Request
from dexar_fast.results.assembly import ResultHeader
from dexar_fast.results.shards import Folder, free_folder
from dexar_fast.stages import Laps, stage

if TYPE_CHECKING:
    from dexar_fast.kvcache.pool import KVPool

PIECE = 64  # tokens

Follow = Callable[[Asked, Laps], Begun]


class Runner:
    """A request, checked, on the model's device, and the places of its visual tokens.

    Args:
        pool: keeps what prompts share. out: the folder for the explanation.
    Raises:
        InputError: something in the request does not fit the model.
    """

    def __init__(
        self,
        setup: Setup,
        request: Request,
        generate_kwargs: dict[str, Any],
        pool: KVPool | None,
        out: Folder | None = None,
    ) -> None:
        self.setup = setup
        self._model = setup.model
        self._generate_kwargs = generate_kwargs
        self._arguments = with_tokenizer(setup.model, setup.processor, generate_kwargs)
        self._pool = pool
        self.out = out
        self._tails: Tails | None = None  # once they have been looked at
        check_adapters(self._model)
        with stage("transfer"):
            self.request = replace(request, inputs=inputs.on_device(self._model, request.inputs))
        with stage("layout"):
            new = generate_kwargs.get("max_new_tokens")
            inputs.check_inputs(self._model, self.request.on_host, request.targets, new, setup.elsewhere)
            images, self.placed = pictured(setup, self.request)
            self.request = self.request.showing(images)
        for doubt in doubts(self._model, self.request, pool is not None):
            warnings.warn(doubt, stacklevel=4)
        check_knobs(setup, self.placed)

    def explain(self) -> Explanation:
        """Explains the whole answer. With `out` a generated one is explained as it is written: a kill leaves a part."""
        generated = self.request.targets is None
        along = generated and self.out is not None and beams(self._model, self._generate_kwargs) == 1
        laps = self.laps()
        if self.out is not None:
            free_folder(self.out)
        with self._named(), borrowed(self._model) as loan, ExitStack() as stack:
            scheduler = ChunkScheduler(partial(self._explainer, loan, stack, laps), self.request.last, PIECE)
            answer, prompt = self._answer(loan, stack, scheduler if along else None)
            laps.lap("stream" if along else "generate" if generated else "prefill")
            scheduler.finish(answer.tolist(), prompt)
            written.check(self._model, self.request.inputs, loan, prompt)
            laps.lap("explain")
        return scheduler.record.explanation()

    @contextmanager
    def answered(self) -> Iterator[Asked]:
        """The request with its answer, given or written now. Inside the block the model is on loan."""
        check_method(self.setup)
        with self._named(), borrowed(self._model) as loan, ExitStack() as stack:
            targets, decoder, logits = self._answer_and_decoder(loan, stack)
            inputs.check_scored(targets, decoder.lens.rows)
            agreement_of(self._model).check(self._model, self.request.inputs, loan, logits)
            yield self._asked(targets.cpu(), decoder)

    def _asked(self, targets: Tensor, decoder: Decoder) -> Asked:
        return Asked(
            model=self._model,
            processor=self.setup.processor,
            decoder=decoder,
            inputs=self.request.inputs,
            targets=targets,
            images=tuple(self.request.images),
            visual=self.placed.positions,
            grids=self.placed.grids,
            chunk_size=self.setup.chunk_size,
            backend=self.setup.backend,
            exact=self.placed.is_exact,
        )

    @property
    def knows_decoder(self) -> bool:
        """Whether an earlier request has found the model's decoder, which may have been changed since."""
        return self.setup.decoder is not None

    def looked_at_again(self, asked: Asked) -> Asked:
        """The same with the model's decoder found anew; the model is on loan."""
        self.setup.decoder = prefill(self._model, asked.inputs, None, Prefix(self._model.config)).decoder
        return replace(asked, decoder=self.setup.decoder)

    def _answer_and_decoder(self, loan: Loan, stack: ExitStack) -> tuple[Tensor, Decoder, Tensor | None]:
        """And the prompt's last logits, if it had to run for these."""
        setup, targets = self.setup, self.request.targets
        if targets is not None and setup.decoder is not None and setup.decoder.is_of(self._model):
            return targets, setup.decoder, None
        answer, prompt = self._answer(loan, stack, None)
        setup.decoder = prompt.decoder
        return answer, prompt.decoder, prompt.seen.logits

    def laps(self) -> Laps:
        """A clock that knows how long the processor took."""
        return Laps(self.request.seconds)

    def header(self, settings: dict[str, Any], laps: Laps, own_cells: bool = False, **more: Any) -> ResultHeader:
        """What a result of this request holds that does not grow with the answer.

        Args:
            own_cells: its maps are not of the visual tokens: whether these have a place does not concern it.
        """
        placed = replace(self.placed, warning=None) if own_cells else self.placed
        more["seconds"] = laps.seconds
        return header(self.setup, self.request, placed, settings, more, self._pool is not None)

    def _named(self) -> AbstractContextManager[None]:
        return faults.named(self._model, self.request.inputs, self._generate_kwargs)

    def stream(self, size: int, follow: Follow | None = None) -> Stream:
        """The answer in pieces of `size` tokens, as it is written.

        Args:
            follow: from the request, still without answer, to what the pass computes and what keeps it; None: DEX-AR's.
        """
        check_arguments(self._model, self.request.inputs, self._arguments)
        check_single(self._model, self._generate_kwargs)
        size = min(size, self.longest)
        if self.out is not None:
            free_folder(self.out)
        return Stream(partial(self._write, size, follow), lambda: is_borrowed_here(self._model))

    def _write(self, size: int, follow: Follow | None, channel: Channel) -> None:
        """The work of a stream's thread."""
        laps = self.laps()
        with self._named(), borrowed(self._model, lambda: channel.closed) as loan, ExitStack() as stack:

            def begin(prompt: Prefill) -> AnswerExplainer:
                explainer = self._explainer(loan, stack, laps, prompt, follow)
                explainer.chunk = min(explainer.chunk, size)
                channel.record = explainer.record
                return explainer

            def hand(chunks: list[Any]) -> None:
                assert channel.record is not None
                piece = Piece.of(channel.record, chunks)
                laps.lap("stream")
                with loan.paused():
                    channel.hand(piece)
                laps.lap("waiting")

            scheduler = ChunkScheduler(begin, self.request.last, size, hand, channel.check)
            answer, prompt = self._answer(loan, stack, scheduler)
            scheduler.finish(answer.tolist(), prompt)
            written.check(self._model, self.request.inputs, loan, prompt)

    def _answer(self, loan: Loan, stack: ExitStack, scheduler: ChunkScheduler | None) -> tuple[Tensor, Prefill]:
        """The answer, given or written by the model, and its prompt's prefill; the stack holds the cache."""
        model, given, setup = self._model, self.request.inputs, self.setup
        if setup.decoder is not None and not setup.decoder.is_of(model):
            setup.decoder = None
        prefix = stack.enter_context(self.prefix(loan))
        if "input_ids" in given:
            stack.enter_context(inputs.embedding_checked(model, self.request.on_host["input_ids"]))
        with fitting("running the prompt"):
            if (targets := self.request.targets) is None:
                targets = written_apart(model, given, self._arguments, loan, scheduler or self._pool or setup.elsewhere)
            if targets is not None:
                return targets, self._prompt(targets, prefix)
            try:
                write = generate_begun if setup.elsewhere else partial(generate, prefix=prefix)
                return write(model, given, setup.decoder, generate_kwargs=self._arguments, follow=scheduler)
            except NumericalError:
                with suppress(InputError):
                    any_token = torch.zeros(1, dtype=torch.long, device="cpu")
                    Runner(setup, Request(given, any_token, []), {}, None).explain()  # the pass names the layer
                raise
            except (Abandoned, KeyboardInterrupt):
                if scheduler is not None:
                    scheduler.interrupted()
                raise

    def _prompt(self, targets: Tensor, prefix: Prefix) -> Prefill:
        """The prefill of a given answer: postponed if the decoder is known, no layer needs a graph, and all fits."""
        decoder, given = self.setup.decoder, self.request.inputs
        if self.setup.elsewhere:
            return begun.begin(self._model, given, decoder)
        if decoder is not None and self.request.against is None and takes_answer(given, decoder, self.placed.positions):
            layers = self.setup.settings.layers_of(len(decoder.layers))
            self._tails = Tails.of(decoder, layers, self.setup.backend)
            alone = not goes_back(self._model.config)  # it will run with each chunk in any case
            if alone or (len(targets) <= self.chunk and self._tails.trusts_all()):
                return postponed(self._model, given, decoder, prefix)
        return prefill(self._model, given, decoder, prefix)

    @cached_property
    def chunk(self) -> int:
        """How many tokens to explain at once; the decoder must be known."""
        decoder = self.setup.decoder
        assert decoder is not None  # the prompt has run, or an earlier one has
        return self.setup.chunk_size or default_chunk(decoder.layers)

    def prefix(self, loan: Loan) -> Prefix:
        """How the prompt begins: over the pool, where there is one."""
        if self._pool is None or self.setup.elsewhere or not goes_back(self._model.config):
            return Prefix(self._model.config)
        from dexar_fast.kvcache.reuse import PooledPrefix

        request, arguments = self.request, forward_arguments(self._model, self._generate_kwargs)
        asked = self._model, request.inputs, request.targets, arguments, loan.paused, request.earlier
        return PooledPrefix(self._pool, *asked, rows=beams(self._model, self._generate_kwargs))

    def _explainer(
        self, loan: Loan, stack: ExitStack, laps: Laps, prompt: Prefill, follow: Follow | None = None
    ) -> AnswerExplainer:
        """The explainer of the answer behind this prompt; the stack closes its record."""
        self.setup.decoder = prompt.decoder
        inputs.check_scored(self.request.targets, prompt.decoder.lens.rows)
        written.check(self._model, self.request.inputs, loan, prompt)
        elsewhere = prompt.begun
        if elsewhere is not None:
            self.placed = settled_elsewhere(self.setup, self.request, elsewhere)
        work = self.begun(laps, elsewhere) if follow is None else follow(self._asked(NONE, prompt.decoder), laps)
        stack.enter_context(work.record)
        device = self.request.inputs["input_ids"].device if elsewhere is None else elsewhere.device
        return AnswerExplainer(self._model, work.plan, self.chunk, device, work.record)

    def begun(self, laps: Laps, elsewhere: BegunPrompt | None = None, **more: Any) -> Begun:
        """What DEX-AR's pass computes, and what keeps it; `more` goes into the result's metadata."""
        setup, request = self.setup, self.request
        plan = plan_of(setup, request, self.placed, self.longest, self._tails, elsewhere)
        settings = {"method": setup.settings.name} | asdict(setup.settings) | {"layers": plan.layers}
        backend = setup.backends()["head_score"]
        header = self.header(settings, laps, chunk_size=self.chunk, backend=backend, **more)
        ids = request.ids if elsewhere is None else elsewhere.labels.tolist()
        return Begun(plan, ResultBuilder(header, getattr(setup.processor, "tokenizer", None), ids, self.out))

    @cached_property
    def longest(self) -> int:
        """The most tokens that the answer can have. Raises InputError."""
        if self.request.targets is not None:
            return len(self.request.targets)
        if self.setup.elsewhere:
            return begun_tokens(self._model, self.request.inputs, self._generate_kwargs)
        return new_tokens(self._model, len(self.request.ids), self._generate_kwargs)
