"""The front door: an image and a prompt in, an Explanation out."""

from __future__ import annotations

import inspect
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Self

import torch
import transformers
from PIL import Image
from torch import Tensor

from dexar_fast import __version__, engine, generation, loading, ops, prompting
from dexar_fast.decoder import Decoder
from dexar_fast.errors import InputError, NumericalError
from dexar_fast.explanation import Explanation
from dexar_fast.geometry import Layout, layout
from dexar_fast.images import load_images
from dexar_fast.memory import default_chunk, fitting
from dexar_fast.record import Record
from dexar_fast.result import Frame
from dexar_fast.session import borrowed
from dexar_fast.settings import positive, settings
from dexar_fast.shards import Folder, free_folder
from dexar_fast.stages import stage
from dexar_fast.stream import Channel, Follower, Job, Piece, Stream
from dexar_fast.textset import text_mask

if TYPE_CHECKING:
    from dexar_fast.pool import KVPool

STREAMED = 64  # tokens of a piece


class Explainer:
    """Explains which image patches each token of a vision-language model's answer depended on (DEX-AR).

    Args:
        model: a transformers causal vision-language model whose text decoder attends through the AttentionInterface.
            It is left as it was: weights, flags, hooks, attention implementation and training mode.
        processor: its processor; needed for `explain`, and for the texts of tokens.
        mode, layers, layer_index, text_set, head_score, map_filter, sequence_norm: see `dexar_fast.settings.Settings`.
        chunk_size: how many tokens to explain at once; None takes the largest up to 512 that fits in 256 MiB.
        backend: "auto", "torch", "cpp" or "triton"; see `dexar-fast doctor`.
        pool: a `dexar_fast.pool.KVPool` for this model: of prompts that begin alike, images included, the common part
            is run once, as long as the pool has room for it. None keeps nothing between calls.
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
        self.model = loading.unwrapped(model)
        loading.check_model(self.model)
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
        self._backends()
        self._decoder: Decoder | None = None

    @classmethod
    def from_pretrained(cls, name: Any = None, *, device: Any = None, dtype: Any = None, **options: Any) -> Self:
        """Loads a model and its processor; without a name the small model that comes with this package.

        Args:
            name: a Hugging Face model id or a folder.
            device: where to put the model; None is the GPU if there is one, else the CPU.
            dtype: "float32", "bfloat16", ... or a torch dtype; None is as stored, for the embedded model float32.
            options: knobs of the Explainer; the others go to transformers' from_pretrained (device_map, revision, ...).
        Raises:
            ModelError: no such model, or not one for images and text. InputError: an unknown knob value.
        """
        known = [name for name, p in inspect.signature(cls).parameters.items() if p.kind is p.KEYWORD_ONLY]
        knobs = {name: options.pop(name) for name in known if name in options}
        # Before the model is loaded, which may take minutes:
        settings(**{name: value for name, value in knobs.items() if name not in ("chunk_size", "backend", "pool")})
        model, processor = loading.load(name, device, dtype, **options)
        return cls(model, processor, **knobs)

    def explain(
        self,
        image: Any,
        prompt: str,
        response: str | None = None,
        *,
        out: Folder | None = None,
        max_new_tokens: int | None = None,
        **generate_kwargs: Any,
    ) -> Explanation:
        """Explains the answer to a prompt about an image: the given one, or the one the model generates.

        Args:
            image: a path, a PIL image, an array [height, width, channels], or a list of them.
            prompt: plain text goes through the processor's chat template; text that holds the model's image token is
                used as it stands.
            response: the answer to explain; None generates it.
            out: a new folder to keep what is explained in, as it is found: `Explanation.load(out)` reads what is
                finished at any time, also after the process was killed.
            max_new_tokens, generate_kwargs: for transformers' generate(); 128 tokens at most unless said otherwise.
        Raises:
            ImageError, InputError, ModelError, NumericalError, OutOfMemoryError, FileError: each says what to do.
        """
        with stage("processor"):
            images = load_images(image)
        question = self._question(images, prompt, response)
        return self._explain(question, _new_tokens(max_new_tokens, generate_kwargs), self.pool, out)

    def stream(
        self,
        image: Any,
        prompt: str,
        *,
        chunk_size: int = STREAMED,
        out: Folder | None = None,
        max_new_tokens: int | None = None,
        **generate_kwargs: Any,
    ) -> Stream:
        """Generates an answer and explains it meanwhile: `for piece in ex.stream(image, prompt): ...`.

        Args:
            image, prompt, out, max_new_tokens, generate_kwargs: as in `explain`; one answer, so no beams.
            chunk_size: the tokens of a piece; the last has what is left. 1 gives each token's map with the token, and
                costs most: every piece runs its tokens once more.
        Returns:
            An iterator over `dexar_fast.stream.Piece`: the text, weights and maps of the next tokens. The answer is the
            same as without streaming. A streamer, a stopping criterion or a logits processor of your own runs in the
            stream's thread. `explanation()` is that of the whole answer, or of what came before an end.
        Raises:
            As in `explain`, here or by the iteration.
        """
        with stage("processor"):
            images = load_images(image)
        question = self._question(images, prompt, None)
        return self._stream(question, _new_tokens(max_new_tokens, generate_kwargs), chunk_size, out)

    def _question(self, images: list[Image.Image], prompt: str, response: str | None) -> _Question:
        if getattr(self.processor, "tokenizer", None) is None:  # none at all, or only a tokenizer
            raise InputError(
                "explain() needs a processor, for images and text: pass Explainer(model, processor) what "
                "AutoProcessor.from_pretrained() gives, or use explain_inputs()"
            )
        start = time.perf_counter()
        with stage("processor"):
            asked = prompting.render(self.processor, prompt, len(images))
            targets = None if response is None else prompting.answer_ids(self.processor, asked, response)
            inputs = prompting.process(self.processor, asked, images)
            content = None
            if self.settings.text_set == "content":
                content = prompting.own_positions(self.processor, asked, inputs["input_ids"])
        return _Question(inputs, targets, images, asked.text, content, time.perf_counter() - start)

    def explain_many(
        self,
        image: Any,
        prompts: str | Sequence[str],
        responses: Sequence[str | Sequence[str]] | None = None,
        *,
        max_new_tokens: int | None = None,
        **generate_kwargs: Any,
    ) -> list[Explanation]:
        """Explains several questions about one image, or several answers: what they share is run once.

        Args:
            image: as in `explain`.
            prompts: the questions, or one.
            responses: to each question an answer, or a list of candidate answers; None generates one.
            max_new_tokens, generate_kwargs: as in `explain`.
        Returns:
            One explanation an answer, in order, equal to those of separate calls to rounding. A model that reads its
            prompt in both directions (PaliGemma) shares nothing.
        Raises:
            ImageError, InputError, ModelError, NumericalError, OutOfMemoryError: each says what to do.
        """
        asked = _asked(prompts, responses)
        images, generate_kwargs = load_images(image), _new_tokens(max_new_tokens, generate_kwargs)
        questions = [self._question(images, prompt, answer) for prompt, answer in asked]
        pool = self.pool or self._pool_for(questions, generate_kwargs)
        return [self._explain(question, generate_kwargs, pool) for question in questions]

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
            images: the original image or images behind the inputs, then the sampled frames of the videos: what maps are
                drawn over. Without them a map is laid over whatever picture it is drawn on as a whole, and images that
                the model cuts into tiles have no maps.
            out, max_new_tokens, generate_kwargs: as in `explain`.
        Raises:
            InputError, ModelError, NumericalError, OutOfMemoryError, FileError: each says what to do.
        """
        question = _given(inputs, images, None if target_ids is None else loading.as_ids(target_ids))
        return self._explain(question, _new_tokens(max_new_tokens, generate_kwargs), self.pool, out)

    def stream_inputs(
        self,
        inputs: Mapping[str, Any],
        *,
        chunk_size: int = STREAMED,
        images: Any = None,
        out: Folder | None = None,
        max_new_tokens: int | None = None,
        **generate_kwargs: Any,
    ) -> Stream:
        """`stream` for inputs that a processor made; the arguments are those of `stream` and `explain_inputs`."""
        question = _given(inputs, images)
        return self._stream(question, _new_tokens(max_new_tokens, generate_kwargs), chunk_size, out)

    def _pool_for(self, questions: list[_Question], generate_kwargs: dict[str, Any]) -> KVPool | None:
        """Room for what the questions share and for the longest of them twice: it may have to be moved."""
        try:
            from dexar_fast.pool import KVPool
        except ImportError:  # the extension was not built, or does not load: one by one, then
            return None
        longest = 0
        for question in questions:
            length, targets = question.inputs["input_ids"].shape[1], question.targets
            new = generation.new_tokens(self.model, length, generate_kwargs) if targets is None else len(targets)
            longest = max(longest, length + new)
        return KVPool(1 + (1 + 2 * generation.beams(self.model, generate_kwargs)) * longest)

    def _explain(
        self,
        question: _Question,
        generate_kwargs: dict[str, Any],
        pool: KVPool | None,
        out: Folder | None = None,
    ) -> Explanation:
        question, placed = self._placed(question, generate_kwargs, out)
        clock = _Clock(question.seconds)
        with borrowed(self.model), self._start(question, pool) as start:
            with fitting("running the prompt"):
                answer, prompt = self._answer(question, start, generate_kwargs)
            clock.lap("generate" if question.targets is None else "prefill")
            job = self._job(question, placed, prompt, len(answer), clock, out)
            with job.record:
                targets = answer.long().cpu()
                job.explain(
                    prompt,
                    [*question.ids[-1:], *targets.tolist()],
                    lambda sums: job.record.add(targets[len(job.record) :][: len(sums.token_maps)], sums),
                )
                clock.lap("explain")
            return job.record.explanation()

    def _stream(
        self, question: _Question, generate_kwargs: dict[str, Any], chunk_size: int, out: Folder | None
    ) -> Stream:
        question, placed = self._placed(question, generate_kwargs, out)
        size = positive("chunk_size", chunk_size)
        generation.check_arguments(question.inputs, generate_kwargs)
        generation.check_single(self.model, generate_kwargs)
        most = generation.new_tokens(self.model, len(question.ids), generate_kwargs)

        def work(channel: Channel) -> None:
            clock = _Clock(question.seconds)
            with borrowed(self.model, lambda: channel.closed) as loan, ExitStack() as stack:
                start = stack.enter_context(self._start(question, self.pool))

                def begin(prompt: generation.Prompt) -> Job:
                    job = self._job(question, placed, prompt, most, clock, out)
                    job.chunk = min(job.chunk, size)
                    channel.record = stack.enter_context(job.record)
                    return job

                def hand(piece: Piece) -> None:
                    clock.lap("stream")
                    with loan.paused():
                        channel.hand(piece)
                    clock.lap("waiting")

                follower = Follower(begin, question.ids[-1], size, hand, channel.check)
                with fitting("running the prompt"):
                    answer, prompt = self._answer(question, start, generate_kwargs, follower)
                follower.finish(answer.tolist(), prompt)

        return Stream(work)

    def _placed(
        self, question: _Question, generate_kwargs: dict[str, Any], out: Folder | None
    ) -> tuple[_Question, Layout]:
        """The question on the model's device, checked, and where its visual tokens are."""
        with stage("transfer"):
            question = replace(question, inputs=loading.on_device(self.model, question.inputs))
        with stage("layout"):
            loading.check_inputs(self.model, question.inputs, question.targets, generate_kwargs.get("max_new_tokens"))
            sizes = [image.size for image in question.images]
            placed = layout(self.model.config, self.processor, question.inputs, sizes or None)
        if self.settings.map_filter is not None and not placed.grids:
            raise InputError(f"map_filter works on 2-D maps, and {placed.warning}: leave it out")
        if out is not None:
            free_folder(out)
        return question, placed

    def _start(self, question: _Question, pool: KVPool | None) -> generation.Start:
        if pool is None:
            return generation.Start()
        from dexar_fast.reuse import Pooled

        reserve = 0 if question.targets is None else len(question.ids) + len(question.targets)
        return Pooled(pool, self.model.config, question.inputs, reserve)

    def _answer(
        self,
        question: _Question,
        start: generation.Start,
        generate_kwargs: dict[str, Any],
        follow: generation.Follow | None = None,
    ) -> tuple[Tensor, generation.Prompt]:
        if self._decoder is not None and not self._decoder.is_of(self.model):
            self._decoder = None
        inputs = question.inputs
        if question.targets is not None:
            return question.targets, generation.prefill(self.model, inputs, self._decoder, start)
        try:
            return generation.generate(self.model, inputs, self._decoder, start, generate_kwargs, follow)
        except NumericalError:
            with suppress(InputError):
                self.explain_inputs(inputs, target_ids=[0])  # any token at all: the pass names the layer
            raise

    def _job(
        self,
        question: _Question,
        placed: Layout,
        prompt: generation.Prompt,
        new: int,
        clock: _Clock,
        out: Folder | None,
    ) -> Job:
        """Explaining up to `new` tokens behind a prompt that has run."""
        self._decoder = prompt.decoder
        length = len(question.ids) + new
        plan = self._plan(prompt.decoder, question, length, placed)
        chunk = self.chunk_size or self._fitting_chunk(prompt.decoder, length)
        frame = Frame(
            visual=plan.visual,
            grids=placed.grids,
            images=tuple(question.images),
            warnings=[placed.warning] if placed.warning else [],
            metadata=self._metadata(plan, question, clock.seconds, chunk),
        )
        record = Record(frame, getattr(self.processor, "tokenizer", None), question.ids, out)
        return Job(self.model, plan, chunk, question.inputs["input_ids"].device, record)

    def _plan(self, decoder: Decoder, question: _Question, length: int, placed: Layout) -> engine.Plan:
        chosen, prompt, visual = self.settings, len(question.ids), placed.positions
        score = partial(
            ops.attribute_layer,
            head_score=chosen.head_score,
            map_filter=chosen.map_filter,
            grids=tuple(torch.from_numpy(grid.cells) for grid in placed.grids),
            with_range=chosen.mode == "official",
            backend=self.backend,
        )
        return engine.Plan(
            prompt=prompt,
            layers=chosen.layers_of(len(decoder.layers)),
            visual=visual,
            text=text_mask(chosen, prompt, length, visual, question.content),
            score=score,
            double_final_norm=chosen.mode == "official",
            ends_with_image=question.inputs if int(visual[-1]) == prompt - 1 else None,
        )

    def _fitting_chunk(self, decoder: Decoder, keys: int) -> int:
        heads = self.model.config.get_text_config(decoder=True).num_attention_heads
        return default_chunk(decoder.layers, heads, keys)

    def _backends(self) -> dict[str, str]:
        """The backend of every operation with these knobs, where the model is now. Raises BackendError."""
        knobs, device = self.settings, torch.device(self.model.device).type
        plan = ops.plan(self.backend, device=device, head_score=knobs.head_score, map_filter=knobs.map_filter)
        return {choice.op: choice.backend for choice in plan}

    def _metadata(
        self, plan: engine.Plan, question: _Question, seconds: dict[str, float], chunk: int
    ) -> dict[str, Any]:
        return {
            "model": self.model.config.name_or_path,
            "model_class": type(self.model).__name__,
            "dtype": str(self.model.dtype).removeprefix("torch."),
            "device": str(self.model.device),
            "settings": asdict(self.settings) | {"layers": plan.layers},
            "prompt_tokens": plan.prompt,
            "chunk_size": chunk,
            "backend": self._backends()["head_score"],
            "versions": {
                "dexar_fast": __version__,
                "torch": torch.__version__,
                "transformers": transformers.__version__,
            },
            "seconds": seconds,
            "complete": False,
        } | ({} if question.text is None else {"prompt": question.text})


@dataclass(frozen=True)
class _Question:
    """A prompt about images as the processor made it, and the given answer if there is one."""

    inputs: Mapping[str, Any]
    targets: Tensor | None
    images: list[Image.Image]
    text: str | None = None  # the rendered prompt, where it is known
    content: Tensor | None = None  # positions of the user's own text
    seconds: float | None = None  # that the processor took

    @cached_property
    def ids(self) -> list[int]:
        """[P]"""
        return self.inputs["input_ids"][0].tolist()


def _asked(prompts: Any, responses: Any) -> list[tuple[str, str | None]]:
    """Each prompt with each of its answers; None for one that is to be generated."""
    if isinstance(prompts, str):
        prompts, responses = [prompts], None if responses is None else [responses]
    answers = [None] * len(prompts) if responses is None else responses
    if isinstance(answers, str) or len(answers) != len(prompts):
        raise InputError(f"responses must hold an answer, or a list of them, to each of the {len(prompts)} prompts")
    every = [[answer] if answer is None or isinstance(answer, str) else answer for answer in answers]
    return [(prompt, answer) for prompt, own in zip(prompts, every, strict=True) for answer in own]


def _given(inputs: Mapping[str, Any], images: Any, targets: Tensor | None = None) -> _Question:
    return _Question(inputs, targets, [] if images is None else load_images(images))


class _Clock:
    """Seconds of each stage, all of its work on the GPU included."""

    def __init__(self, processor: float | None) -> None:
        self.seconds: dict[str, float] = {} if processor is None else {"processor": processor}
        self._last = time.perf_counter()

    def lap(self, stage: str) -> None:
        """The time since the last lap is the stage's."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        now = time.perf_counter()
        self.seconds[stage] = self.seconds.get(stage, 0) + now - self._last
        self._last = now


def _new_tokens(max_new_tokens: int | None, generate_kwargs: dict[str, Any]) -> dict[str, Any]:
    if max_new_tokens is None:
        return generate_kwargs
    return generate_kwargs | {"max_new_tokens": positive("max_new_tokens", max_new_tokens)}
