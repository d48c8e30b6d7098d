"""The front door: an image and a prompt in, an Explanation out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from dexar_fast.comparison import Comparison
from dexar_fast.conversation import Chat
from dexar_fast.errors import InputError
from dexar_fast.evaluation import checking
from dexar_fast.explanation import Explanation
from dexar_fast.generation import faults, shared
from dexar_fast.generation.arguments import at_most
from dexar_fast.generation.runner import PIECE, Runner
from dexar_fast.generation.stream import Stream
from dexar_fast.methods import explaining
from dexar_fast.methods.base import Method
from dexar_fast.methods.dex_ar import DexAr
from dexar_fast.metrics.evidence import Evidence
from dexar_fast.prepared import Prepared
from dexar_fast.prompt import request
from dexar_fast.prompt.inputs import as_ids
from dexar_fast.prompt.request import Request
from dexar_fast.results.shards import Folder
from dexar_fast.settings import positive

if TYPE_CHECKING:
    from dexar_fast.kvcache.pool import KVPool


class Explainer(Prepared):
    """Explains which image patches each token of a vision-language model's answer depended on (DEX-AR).

    Args:
        model: a transformers model that writes text about images: a decoder that reads them in its prompt, by
            cross-attention, or in an encoder. It stays as it was: weights, flags, hooks, attention implementation and
            training mode.
        processor: its processor; needed for `explain`, and for the texts of tokens.
        method: the name of a method (`dexar_fast.methods.names()`), or an object such as `Eagle(regions=64)`.
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
    def explain(
        self,
        image: Any,
        prompt: str | Sequence[Mapping[str, Any]],
        response: str | None = None,
        *,
        out: Folder | None = None,
        max_new_tokens: int | None = None,
        **generate_kwargs: Any,
    ) -> Explanation:
        """Explains the answer to a prompt about an image: the given one, or the one the model generates.

        Args:
            image: a path, a PIL image, an array [height, width, channels], or a list of them; None where the messages
                of the prompt hold them.
            prompt: a text, or chat messages. A text goes through the processor's chat template, unless it holds the
                model's image token: then it is used unchanged. Messages are [{"role": "user", "content": ...}, ...]; a
                content is a text, or a list of {"type": "text", "text": ...} and {"type": "image", "image": ...}. Parts
                of type "image" without a picture show those of `image`, in order. If the last message is the
                assistant's, the answer continues it.
            response: the answer to explain; None generates it.
            out: a new folder that takes the results while they are computed. `Explanation.load(out)` reads what is
                finished at any time, even after the process was killed.
            max_new_tokens, generate_kwargs: for transformers' generate(), which reads the model's own generation config
                too. If neither sets a length, the answer has at most 128 tokens.
        Raises:
            ImageError, InputError, ModelError, NumericalError, OutOfMemoryError, FileError: each says what to do.
        """
        asked = self._read(request.pictures(image), prompt, response)
        return self._explain(asked, at_most(max_new_tokens, generate_kwargs), self.pool, out)

    @faults.of_method
    def stream(
        self,
        image: Any,
        prompt: str | Sequence[Mapping[str, Any]],
        *,
        chunk_size: int = PIECE,
        out: Folder | None = None,
        max_new_tokens: int | None = None,
        **generate_kwargs: Any,
    ) -> Stream:
        """Generates an answer and explains it meanwhile: `for piece in ex.stream(image, prompt): ...`.

        By "dex-ar", "attention", or "attention-gradient" of the layers' lenses; the other methods raise InputError.

        Args:
            image, prompt, max_new_tokens, generate_kwargs: as in `explain`; one answer, so no beams.
            out: as in `explain`; of "dex-ar" alone.
            chunk_size: how many tokens a piece holds; the last holds the rest. 1 gives each token's map with the token,
                and costs most: every piece runs its tokens once more.
        Returns:
            An iterator over `dexar_fast.generation.stream.Piece`: the text, weights and maps of the next tokens. The
            answer is the same as without streaming, unless you draw from torch's global generator between the pieces of
            a sampled one, or `max_time` runs out while you look at a piece. A streamer, a stopping criterion or a
            logits processor of your own runs in the stream's thread. `explanation()` covers the whole answer, or what
            was finished when the stream was ended.
        Raises:
            As in `explain`, here or by the iteration.
        """
        asked = self._read(request.pictures(image), prompt, None)
        return self._stream(asked, chunk_size, max_new_tokens, generate_kwargs, out)

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
    def explain_inputs(
        self,
        inputs: Mapping[str, Any],
        target_ids: Any = None,
        *,
        images: Any = None,
        out: Folder | None = None,
        max_new_tokens: int | None = None,
        **generate_kwargs: Any,
    ) -> Explanation:
        """Explains an answer to inputs that a processor made.

        Args:
            inputs: what the model's processor returns for the prompt, batch 1, not padded.
            target_ids: [T] ids of the answer; None generates it.
            images: the original image or images of the inputs, then the sampled frames of the videos. Maps are drawn
                over them. Without them, a map covers the whole of any picture it is drawn on, and images that the model
                cuts into tiles have no maps.
            out, max_new_tokens, generate_kwargs: as in `explain`.
        Raises:
            InputError, ModelError, NumericalError, OutOfMemoryError, FileError: each says what to do.
        """
        asked = request.given(inputs, images, None if target_ids is None else as_ids(target_ids))
        return self._explain(asked, at_most(max_new_tokens, generate_kwargs), self.pool, out)

    @faults.of_method
    def stream_inputs(
        self,
        inputs: Mapping[str, Any],
        *,
        chunk_size: int = PIECE,
        images: Any = None,
        out: Folder | None = None,
        max_new_tokens: int | None = None,
        **generate_kwargs: Any,
    ) -> Stream:
        """`stream` for inputs that a processor made; the arguments are those of `stream` and `explain_inputs`."""
        return self._stream(request.given(inputs, images), chunk_size, max_new_tokens, generate_kwargs, out)

    def _explain(
        self, asked: Request, generate_kwargs: dict[str, Any], pool: KVPool | None, out: Folder | None = None
    ) -> Explanation:
        return explaining.explain(Runner(self, asked, generate_kwargs, pool, out), self.method)

    def _stream(
        self,
        asked: Request,
        chunk_size: int,
        max_new_tokens: int | None,
        generate_kwargs: dict[str, Any],
        out: Folder | None,
    ) -> Stream:
        runner = Runner(self, asked, at_most(max_new_tokens, generate_kwargs), self.pool, out)
        return explaining.stream(runner, self.method, positive("chunk_size", chunk_size))
