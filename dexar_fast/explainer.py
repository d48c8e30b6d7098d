"""The front door: an image and a prompt in, an Explanation out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from dexar_fast import combining
from dexar_fast.asking import Asking
from dexar_fast.comparison import Comparison
from dexar_fast.conversation import Chat
from dexar_fast.errors import InputError
from dexar_fast.evaluation import checking
from dexar_fast.explanation import Explanation
from dexar_fast.generation import faults, shared
from dexar_fast.generation.arguments import at_most
from dexar_fast.generation.batch.explaining import Many
from dexar_fast.methods.base import Method
from dexar_fast.methods.dex_ar import DexAr
from dexar_fast.metrics.hiding.evidence import Evidence
from dexar_fast.prompt import request
from dexar_fast.prompt.request import Request
from dexar_fast.settings import positive


class Explainer(Asking):
    """Explains which image patches each token of a vision-language model's answer depended on (DEX-AR).

    Args:
        model: a transformers model that writes text about images: a decoder that reads them in its prompt, by
            cross-attention, or in an encoder. It stays as it was: weights, flags, hooks, attention implementation and
            training mode.
        processor: its processor; needed for `explain`, and for the texts of tokens.
        method: the name of a method (`dexar_fast.methods.names()`), or an object such as `Eagle(regions=64)`.
        against: explains why the answer says each token rather than another: a word, a token id, or "runner-up", the
            likeliest other token at each place. By methods of gradients and of hidden parts.
        mode, layers, layer_index, text_set, head_score, map_filter, sequence_norm, text_relevance: knobs of the method
            "dex-ar"; see `dexar_fast.settings.Settings`.
        chunk_size: how many tokens to explain at once; None takes the largest up to 512 that fits in 256 MiB.
        backend: "auto", "torch", "cpp" or "triton"; see `dexar-fast doctor`.
        pool: a `dexar_fast.KVPool` for this model. Prompts that begin alike, images included, run their common part
            once while the pool remembers it. A prompt waits, at most as long as the pool's `wait`, for room that
            other threads' streams will free; one that does not fit at all, and an answer that outgrows the pool, raise
            BudgetExhausted. None keeps nothing between calls.
    Raises:
        InputError: an unknown value. BackendError: a backend that cannot run here.
        ModelError: a model that is no transformers model for images and text.
    """

    @faults.of_method
    def explain_many(
        self,
        image: Any,
        prompts: str | Sequence[Any],
        responses: Sequence[str | Sequence[str]] | None = None,
        *,
        max_new_tokens: int | None = None,
        **generate_kwargs: Any,
    ) -> list[Explanation]:
        """Explains several questions about one image, or several answers. What they share runs once.

        Args:
            image: as in `explain`.
            prompts: one question, or a list of them; each is a text or chat messages.
            responses: for each question an answer, or a list of candidate answers; None generates one.
            max_new_tokens, generate_kwargs: as in `explain`.
        Returns:
            One explanation for each answer, in order, equal to that of a separate call up to rounding. If the model
            reads its prompt in both directions (PaliGemma), different questions share only the vision tower's work.
        Raises:
            ImageError, InputError, ModelError, NumericalError, OutOfMemoryError: each says what to do.
        """
        asked = request.each(prompts, responses)
        images, generate_kwargs = request.pictures(image), at_most(max_new_tokens, generate_kwargs)
        questions = [self._read(images, prompt, answer) for prompt, answer in asked]
        pool = self.pool or shared.pool_for(self, questions, generate_kwargs)
        return [self._explain(each, generate_kwargs, pool) for each in questions]

    @faults.of_method
    def explain_batch(
        self,
        requests: Sequence[tuple[Any, ...]],
        batch_size: int | None = None,
        *,
        max_new_tokens: int | None = None,
        **generate_kwargs: Any,
    ) -> list[Explanation | Exception]:
        """Explains many requests, several in a forward: answers that are written, or given ones.

        Prompts of like length run side by side, padded on the left, and given answers one behind the other in a row,
        without padding, where the model allows it. Each explanation equals that of a separate call up to rounding, and
        so does each answer unless it is sampled. Some run one by one: of a model that computes something else in a
        batch (`diagnostics["warnings"]` says so), with beams, stop strings or code of yours in generate(), and by other
        methods than "dex-ar". `metadata["batch"]` is the size of the batch, `metadata["packed"]` whether it was a row.
        Rows of given answers use the explainer's pool: of prompts that begin alike, pictures included, one runs whole
        and the others behind what it left. Batches of written answers do not use it.

        Args:
            requests: (image, prompt), or (image, prompt, response); each as in `explain`.
            batch_size: how many run at once, fewer where their answers have more tokens than `chunk_size`; None takes
                as many as fit in 256 MiB.
            max_new_tokens, generate_kwargs: as in `explain`.
        Returns:
            In the order of the requests an explanation each, or the error that `explain` would raise: a bad request
            costs itself alone.
        """
        several = request.listed("requests", requests)
        found = dict(self.explain_as_completed(several, batch_size, max_new_tokens=max_new_tokens, **generate_kwargs))
        return [found[n] for n in range(len(several))]

    @faults.of_method
    def explain_as_completed(
        self,
        requests: Iterable[tuple[Any, ...]],
        batch_size: int | None = None,
        *,
        max_new_tokens: int | None = None,
        **generate_kwargs: Any,
    ) -> Iterator[tuple[int, Explanation | Exception]]:
        """`explain_batch` as an iterator: what is finished is yours before the next batch begins.

        Args:
            requests: as in `explain_batch`, perhaps without an end: 64 are read at a time, or `batch_size` if it is
                larger.
            batch_size, max_new_tokens, generate_kwargs: as in `explain_batch`.
        Returns:
            An iterator over (number of the request, from 0 on; its explanation or its error), in the order in which
            they are finished.
        """
        asked = (request.or_error(self._read_one, each) for each in request.iterable("requests", requests))
        return self._many(batch_size, at_most(max_new_tokens, generate_kwargs)).completed(asked)

    @faults.of_method
    def chat(self, image: Any = None) -> Chat:
        """A conversation: `chat.ask(question)` explains the next answer and runs only what is new.

        Keys and values of what was said stay in the explainer's pool, or in one of the chat's own that grows with it.

        Args:
            image: as in `explain`, shown with the first question; None where it comes with a question.
        Raises:
            ImageError: a picture that cannot be read.
        """
        return Chat(self, image)

    @faults.of_method
    def compare(
        self,
        image: Any,
        prompt: str | Sequence[Mapping[str, Any]],
        methods: Sequence[str | Method | DexAr],
        response: str | None = None,
        *,
        max_new_tokens: int | None = None,
        **generate_kwargs: Any,
    ) -> Comparison:
        """Explains one answer by several methods, side by side.

        Args:
            image, prompt, response, max_new_tokens, generate_kwargs: as in `explain`; the answer is written once.
            methods: names, names with knobs ("eagle:regions=36"), or objects.
        Raises:
            InputError: an unknown method, or none. Else as `explain`.
        """
        explainers = [self.with_method(method) for method in request.listed("methods", methods)]
        if not explainers:
            raise InputError("methods is empty: name at least one")
        asks = next((each for each in explainers if each.settings.text_set == "content"), self)
        asked = asks._read(request.pictures(image), prompt, response)
        arguments = at_most(max_new_tokens, generate_kwargs)
        found: list[Explanation] = []
        for each in explainers:
            each.decoder = self.decoder
            found.append(each._explain(asked, arguments, self.pool))
            self.decoder, asked = each.decoder, replace(asked, targets=found[0].token_ids)
        return Comparison([each.method.name for each in explainers], found)

    @faults.of_method
    def difference(self, image: Any, prompt: str | Sequence[Mapping[str, Any]], a: str, b: str) -> Comparison:
        """What each of two answers rests on that the other does not, side by side.

        Each map is scaled to a sum of 1, the other answer's is taken off, and what is left below 0 is 0.

        Args:
            image, prompt: as in `explain`. a, b: the answers, which must differ.
        Raises:
            As `explain`.
        """
        if not (isinstance(a, str) and isinstance(b, str)):
            raise InputError("a and b are the texts of two answers: difference() generates none")
        if a == b:
            raise InputError("the two answers are the same: there is no difference to explain")
        one, other = self.explain_many(image, [prompt], [[a, b]])
        return Comparison([a.strip(), b.strip()], [combining.beyond(one, other), combining.beyond(other, one)])

    @faults.of_method
    def check(
        self,
        explanation: Explanation,
        *,
        draws: int = 4,
        fill: str = "blur",
        seed: int = 0,
        batch: int | None = None,
        inputs: Mapping[str, Any] | None = None,
    ) -> Evidence:
        """Whether the map of an answer shows what the answer rests on; at most 7 + `draws` forwards.

        The top 5, 10 and 20 % of the map are hidden, beside a centred map of the same areas and random ones at 10 %.
        What is found stands in `explanation.diagnostics["evidence"]` too, and in its report.

        Args:
            explanation: of this model, by any method, with its picture.
            draws: random maps. seed: of these.
            fill: what stands where the picture is hidden: "blur", "black", "mean", "noise", or "tokens", which hides
                visual tokens and not pixels.
            batch: pictures in one forward; None takes as many as fit.
            inputs: those of `explain_inputs`, if it made the explanation.
        Returns:
            By how much the log-probability of the answer and of its tokens falls, a verdict and its sentence.
        Raises:
            InputError: no picture or prompt was kept, a prompt that has become another, or an option that is none.
        """
        found = checking.check(self, explanation, draws=draws, fill=fill, seed=seed, batch=batch, inputs=inputs)
        explanation.diagnostics["evidence"] = found.to_dict()
        return found

    @faults.of_method
    def explain_batch_inputs(
        self,
        requests: Sequence[tuple[Mapping[str, Any], Any]],
        batch_size: int | None = None,
        *,
        max_new_tokens: int | None = None,
        **generate_kwargs: Any,
    ) -> list[Explanation | Exception]:
        """`explain_batch` for (inputs, target_ids) as `explain_inputs` takes them."""
        several = request.listed("requests", requests)
        asked = (request.or_error(request.given_pair, each) for each in several)
        found = dict(self._many(batch_size, at_most(max_new_tokens, generate_kwargs)).completed(asked))
        return [found[n] for n in range(len(several))]

    def _many(self, batch_size: int | None, generate_kwargs: dict[str, Any]) -> Many:
        size = None if batch_size is None else positive("batch_size", batch_size)
        size = size if isinstance(self.method, DexAr) and self.against is None else 1
        alone = partial(self._explain, generate_kwargs=generate_kwargs, pool=self.pool)
        return Many(self, generate_kwargs, alone, size, self.pool)

    @faults.of_method
    def _read_one(self, asked: Any) -> Request:
        image, prompt, response = request.triple(asked)
        return self._read(request.pictures(image), prompt, response)
