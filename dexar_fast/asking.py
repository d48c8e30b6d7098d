"""One request: explained at once, or as its answer is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dexar_fast.explanation import Explanation
from dexar_fast.generation import faults
from dexar_fast.generation.arguments import at_most
from dexar_fast.generation.runner import PIECE, Runner
from dexar_fast.generation.stream import Stream
from dexar_fast.methods import explaining
from dexar_fast.prepared import Prepared
from dexar_fast.prompt import request
from dexar_fast.prompt.request import Request
from dexar_fast.results.shards import Folder
from dexar_fast.settings import positive

if TYPE_CHECKING:
    from dexar_fast.kvcache.pool import KVPool


class Asking(Prepared):
    """How an `Explainer` explains one answer; it says what the arguments of both are."""

    @faults.of_method
    def explain(
        self,
        image: Any,
        prompt: str | Sequence[Mapping[str, Any]],
        response: Any = None,
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
            response: the answer to explain: a text, or what generate(), vLLM or SGLang returned for this prompt; None
                generates it.
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
            target_ids: [T] ids of the answer, or what generate(), vLLM or SGLang returned; None generates it.
            images: the original image or images of the inputs, then the sampled frames of the videos. Maps are drawn
                over them. Without them, a map covers the whole of any picture it is drawn on, and images that the model
                cuts into tiles have no maps.
            out, max_new_tokens, generate_kwargs: as in `explain`.
        Raises:
            InputError, ModelError, NumericalError, OutOfMemoryError, FileError: each says what to do.
        """
        asked = self._given(inputs, target_ids, images)
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
