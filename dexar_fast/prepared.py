"""A model, its processor and a method, checked, before anything is asked."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self

from PIL import Image
from torch import Tensor

from dexar_fast.generation.arguments import end_ids
from dexar_fast.generation.setup import Setup
from dexar_fast.loading import holders, models
from dexar_fast.loading.adapters import unwrapped
from dexar_fast.methods import contrast, registry
from dexar_fast.methods.base import Layered, Method
from dexar_fast.methods.dex_ar import DexAr
from dexar_fast.model.cache import goes_back
from dexar_fast.model.kinds import opening_of, reads_elsewhere, writer_of
from dexar_fast.model.lending.locks import check_process
from dexar_fast.prompt import answers, request
from dexar_fast.prompt.inputs import as_ids, largest
from dexar_fast.prompt.request import Request
from dexar_fast.settings import Settings, positive, settings

if TYPE_CHECKING:
    from dexar_fast.kvcache.pool import KVPool

BESIDE = ("method", "against", "chunk_size", "backend", "pool")  # options of an Explainer that are no knobs of DEX-AR


class Prepared(Setup):
    """How an `Explainer` is made, which says what the arguments are."""

    def __init__(
        self,
        model: Any,
        processor: Any = None,
        *,
        method: str | Method | DexAr = DexAr.name,
        against: str | int | None = None,
        mode: str = "paper",
        layers: Sequence[int] | None = None,
        layer_index: int | None = None,
        text_set: str = "all",
        head_score: Any = "max",
        map_filter: Any = None,
        sequence_norm: str = "none",
        text_relevance: bool = False,
        chunk_size: int | None = None,
        backend: str = "auto",
        pool: KVPool | None = None,
    ) -> None:
        model, self.processor = holders.parts(model, processor)
        self.model = unwrapped(model)
        models.check_model(self.model)
        check_process(self.model)
        knobs = settings(
            layers,
            head_score,
            map_filter,
            mode=mode,
            layer_index=layer_index,
            text_set=text_set,
            sequence_norm=sequence_norm,
            text_relevance=text_relevance,
        )
        self.method = registry.with_knobs(method, knobs)
        self.settings = self.method if isinstance(self.method, Settings) else knobs
        self.against = contrast.check(against, self.method)
        self.chunk_size = None if chunk_size is None else positive("chunk_size", chunk_size)
        self.backend = backend
        self.pool = pool
        self.elsewhere = reads_elsewhere(self.model)
        self._check_layers()
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
        method = knobs.get("method", DexAr.name)
        of_dex_ar = settings(**{name: value for name, value in knobs.items() if name not in BESIDE})
        contrast.check(knobs.get("against"), registry.with_knobs(method, of_dex_ar))
        check_process()
        loaded = models.load(name, device, dtype, allow_missing_weights=allow_missing_weights, **options)
        explainer = cls(loaded.model, loaded.processor, **knobs)
        explainer.warnings = loaded.warnings
        for warning in loaded.warnings:
            warnings.warn(warning, stacklevel=2)
        return explainer

    def with_method(self, method: str | Method | DexAr) -> Self:
        """An explainer by another method, of the same model, processor and pool; its own one by name keeps its knobs.

        Raises as the constructor does.
        """
        other = type(self).__new__(type(self))
        vars(other).update(vars(self))  # not as a copy is pickled: of the model there is only one
        other.method = self.method if method == self.method.name else registry.of(method)
        contrast.check(other.against, other.method)
        other.settings = other.method if isinstance(other.method, Settings) else Settings()
        other._check_layers()
        return other

    def _read(self, images: list[Image.Image], prompt: Any, response: Any) -> Request:
        written = answers.written(response)
        asked = request.read(
            self.processor,
            images,
            prompt,
            response if written is None else None,
            with_content=self.settings.text_set == "content",
            elsewhere=self.elsewhere,
            opening=opening_of(self.model),
        )
        return asked if written is None else replace(asked, targets=self._written(written, asked.inputs))

    def _given(self, inputs: Any, target_ids: Any, images: Any = None) -> Request:
        written = answers.written(target_ids)
        if written is not None and isinstance(inputs, Mapping):
            return request.given(inputs, images, self._written(written, inputs))
        return request.given(inputs, images, None if target_ids is None else as_ids(target_ids))

    def _written(self, answer: answers.Written, inputs: Mapping[str, Any]) -> Tensor:
        ends = end_ids(writer_of(self.model), {})
        return answers.targets(answer, self.model, getattr(self.processor, "tokenizer", None), inputs, ends)

    def _check_layers(self) -> None:
        """Raises InputError for layers that the decoder lacks, as far as its config says how many it has."""
        if self.elsewhere or not goes_back(self.model.config):  # some hold two calls of attention, or run twice
            return
        count = largest(self.model.config.get_text_config(decoder=True), "num_hidden_layers")
        if isinstance(count, int) and isinstance(self.method, Layered):
            self.method.layers_of(count)
