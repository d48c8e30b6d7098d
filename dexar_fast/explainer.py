"""The front door: an image and a prompt in, an Explanation out."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

from PIL import Image

from dexar_fast.explanation import Explanation
from dexar_fast.generation import faults
from dexar_fast.generation.arguments import beams, new_tokens
from dexar_fast.generation.runner import PIECE, Runner
from dexar_fast.generation.setup import Setup
from dexar_fast.generation.stream import Stream
from dexar_fast.loading import models
from dexar_fast.loading.adapters import unwrapped
from dexar_fast.model.lending.locks import check_process
from dexar_fast.prompt import request
from dexar_fast.prompt.inputs import as_ids
from dexar_fast.prompt.request import Request
from dexar_fast.results.shards import Folder
from dexar_fast.settings import positive, settings
from dexar_fast.stages import stage
from dexar_fast.vision.images import load_images

if TYPE_CHECKING:
    from dexar_fast.kvcache.pool import KVPool


class Explainer(Setup):
    """Explains which image patches each token of a vision-language model's answer depended on (DEX-AR).

    Args:
        model: a transformers causal vision-language model whose text decoder attends through the AttentionInterface.
            It stays as it was: weights, flags, hooks, attention implementation and training mode.
        processor: its processor; needed for `explain`, and for the texts of tokens.
        mode, layers, layer_index, text_set, head_score, map_filter, sequence_norm: see `dexar_fast.settings.Settings`.
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

    def __init__(
        self,
        model: Any,
        processor: Any = None,
        *,
        mode: str = "paper",
        layers: Sequence[int] | None = None,
        layer_index: int | None = None,
        text_set: str = "all",
        head_score: Any = "max",
        map_filter: Any = None,
        sequence_norm: str = "none",
        chunk_size: int | None = None,
        backend: str = "auto",
        pool: KVPool | None = None,
    ) -> None:
        self.model = unwrapped(model)
        models.check_model(self.model)
        check_process(self.model)
        self.processor = processor
        self.settings = settings(
            layers,
            head_score,
            map_filter,
            mode=mode,
            layer_index=layer_index,
            text_set=text_set,
            sequence_norm=sequence_norm,
        )
        self.chunk_size = None if chunk_size is None else positive("chunk_size", chunk_size)
        self.backend = backend
        self.pool = pool
        self.backends()
        self.decoder = None
        self.warnings = []

    @classmethod
    def from_pretrained(
        cls,
        name: Any = None,
        *,
        device: Any = None,
        dtype: Any = None,
        allow_missing_weights: bool = False,
        **options: Any,
    ) -> Self:
        """Loads a model and its processor; without a name the small model that comes with this package.

        Args:
            name: a Hugging Face model id or a folder. It may be that of a PEFT adapter: then the model that the adapter
                names is loaded too.
            device: where to put the model; None is the GPU if there is one, else the CPU.
            dtype: "float32", "bfloat16", ... or a torch dtype; None is the stored one (embedded model: float32).
            allow_missing_weights: go on where the checkpoint lacks weights of the model, or holds some that its modules
                do not take; the explanations' warnings name them.
            options: knobs of the Explainer; the others go to transformers' from_pretrained (device_map, revision, ...).
        Raises:
            ModelError: no such model, or not one for images and text. InputError: an unknown knob value.
        """
        known = [name for name, p in inspect.signature(cls).parameters.items() if p.kind is p.KEYWORD_ONLY]
        knobs = {name: options.pop(name) for name in known if name in options}
        # Check the knobs first: loading the model may take minutes.
        settings(**{name: value for name, value in knobs.items() if name not in ("chunk_size", "backend", "pool")})
        check_process()
        loaded = models.load(name, device, dtype, allow_missing_weights=allow_missing_weights, **options)
        explainer = cls(loaded.model, loaded.processor, **knobs)
        explainer.warnings = loaded.warnings
        for warning in loaded.warnings:
            warnings.warn(warning, stacklevel=2)
        return explainer

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
        asked = self._read(_pictures(image), prompt, response)
        return Runner(self, asked, _new_tokens(max_new_tokens, generate_kwargs), self.pool, out).explain()

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

        Args:
            image, prompt, out, max_new_tokens, generate_kwargs: as in `explain`; one answer, so no beams.
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
        asked = self._read(_pictures(image), prompt, None)
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
        images, generate_kwargs = _pictures(image), _new_tokens(max_new_tokens, generate_kwargs)
        questions = [self._read(images, prompt, answer) for prompt, answer in asked]
        pool = self.pool or self._pool_for(questions, generate_kwargs)
        return [Runner(self, each, generate_kwargs, pool).explain() for each in questions]

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
        return Runner(self, asked, _new_tokens(max_new_tokens, generate_kwargs), self.pool, out).explain()

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

    def _read(self, images: list[Image.Image], prompt: Any, response: str | None) -> Request:
        return request.read(self.processor, images, prompt, response, with_content=self.settings.text_set == "content")

    def _stream(
        self,
        asked: Request,
        chunk_size: int,
        max_new_tokens: int | None,
        generate_kwargs: dict[str, Any],
        out: Folder | None,
    ) -> Stream:
        generate_kwargs = _new_tokens(max_new_tokens, generate_kwargs)
        return Runner(self, asked, generate_kwargs, self.pool, out).stream(positive("chunk_size", chunk_size))

    def _pool_for(self, questions: list[Request], generate_kwargs: dict[str, Any]) -> KVPool | None:
        """A pool that holds what the questions share, and the longest of them twice, since it may have to move."""
        try:
            from dexar_fast.kvcache.pool import KVPool
        except ImportError:  # the extension was not built or does not load: the questions run one by one
            return None
        longest = 0
        for each in questions:
            length, targets = len(each.ids), each.targets
            new = new_tokens(self.model, length, generate_kwargs) if targets is None else len(targets)
            longest = max(longest, length + new)
        slots = 1 + (1 + 2 * beams(self.model, generate_kwargs)) * longest
        return KVPool(slots, backend=self.backend)


def _pictures(image: Any) -> list[Image.Image]:
    """The images as they are loaded; an empty list where the messages of the prompt hold them."""
    with stage("processor"):
        return [] if image is None else load_images(image)


def _new_tokens(max_new_tokens: int | None, generate_kwargs: dict[str, Any]) -> dict[str, Any]:
    if max_new_tokens is None:
        return generate_kwargs
    return generate_kwargs | {"max_new_tokens": positive("max_new_tokens", max_new_tokens)}
