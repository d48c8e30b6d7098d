"""What would be explained of one's own model: found out by a short answer about the sample picture."""

from __future__ import annotations

from typing import Any

from torch import nn

from dexar_fast.cli.doctor.findings import Finding
from dexar_fast.cli.explain import SAMPLE_IMAGE, SAMPLE_PROMPT
from dexar_fast.errors import DexarError, InternalError, ModelError, reason
from dexar_fast.explainer import Explainer
from dexar_fast.explanation import Explanation
from dexar_fast.generation.places.placing import measured
from dexar_fast.generation.runner import Runner
from dexar_fast.model.cache import whole_cache
from dexar_fast.model.decoder import Decoder
from dexar_fast.model.lens.program import LogitLens
from dexar_fast.prompt.request import pictures
from dexar_fast.vision.geometry import CHECKED

TOKENS = 3  # of the short answer
CONFIRMED = "what they answer to pictures of random blocks confirms it"
MOVED = "measuring finds them elsewhere than declared"


def examine(name: str | None, device: str | None = None, dtype: str | None = None) -> list[Finding]:
    """What an explanation of this model would hold, and how it would run; why not, where it is refused.

    Raises:
        ModelError: no such model. InternalError: a fault of dexar_fast.
    """
    explainer = Explainer.from_pretrained(name, device=device, dtype=dtype, allow_missing_weights=True)
    config = explainer.model.config
    model = Finding("model", type(explainer.model).__name__, f"{config.model_type}, {explainer.model.dtype}")
    try:
        explained = explainer.explain(SAMPLE_IMAGE, SAMPLE_PROMPT, max_new_tokens=TOKENS, min_new_tokens=TOKENS)
        given = explainer.explain(SAMPLE_IMAGE, SAMPLE_PROMPT, response=explained.text)
    except InternalError:
        raise
    except DexarError as error:
        return [model, Finding("explained", "no", str(error))]
    decoder = explainer.decoder
    assert decoder is not None  # a prompt has run
    return [
        model,
        Finding("explained", "yes", f"it began its answer with {explained.text!r}"),
        Finding(
            "maps",
            f"of {len(decoder.layers)} layers, {explained.visual_scores.shape[2]} heads",
            _layers(explainer.model, decoder),
        ),
        Finding("visual tokens", str(len(explained.visual_positions)), _places(given)),
        Finding("places", *(_of_keys(given) if explainer.elsewhere else _measured(explainer))),
        Finding("runs", *_way(explainer)),
        Finding("gradients", *_gradients(decoder)),
        Finding("logit lens", type(decoder.lens.head).__name__, _steps(decoder.lens)),
        *(Finding("warning", "", each) for each in explained.diagnostics["warnings"]),
    ]


def _layers(model: nn.Module, decoder: Decoder) -> str:
    """Which layers attend, and that others do not."""
    attending = {id(layer) for layer in decoder.layers}
    lists = [
        each for each in model.modules() if isinstance(each, nn.ModuleList) and any(id(x) in attending for x in each)
    ]
    numbers = [i for each in lists for i, layer in enumerate(each) if id(layer) in attending]
    count = sum(map(len, lists))
    kinds = " and ".join(sorted({type(attention).__name__ for attention in decoder.attentions}))
    return kinds if len(numbers) == count else f"{kinds} in layers {numbers} of {count}; the others have no attention"


def _places(explained: Explanation) -> str:
    """Where the visual tokens lie."""
    if not explained.grids:
        return "without a place in the image"
    return ", ".join(f"{grid.cells.shape[0]} x {grid.cells.shape[1]}" for grid in explained.grids)


def _of_keys(explained: Explanation) -> tuple[str, str]:
    """How the places of keys are known that stand elsewhere than in the prompt."""
    return str(explained.metadata["places"]), "of the image's keys, by what the first call that reads them gets"


def _measured(explainer: Explainer) -> tuple[str, str]:
    """How the places are known, and what measuring says of them, which an explanation asks once."""
    asked = explainer._read(pictures(SAMPLE_IMAGE), SAMPLE_PROMPT, None)
    runner = Runner(explainer, asked, {}, None)
    try:
        found = measured(explainer, runner.request, runner.request.images, runner.placed)
    except Exception as error:  # a processor or a forward may refuse the pictures, each with errors of its own
        return runner.placed.how, f"they cannot be measured: {reason(error)}"
    if not found.grids:
        return runner.placed.how, str(found.reason)
    return runner.placed.how, CONFIRMED if found.how == CHECKED else MOVED


def _way(explainer: Explainer) -> tuple[str, str]:
    if explainer.elsewhere:
        return "each chunk with all before it", "its image is not among the prompt's tokens; a KV pool is not used"
    try:
        whole_cache(explainer.model.config)
    except ModelError as error:
        return "each chunk with all before it", f"{reason(error)}; a KV pool is not used"
    return "over its own KV cache", "an answer in one pass over its rows; a KV pool may hold the prompt"


def _gradients(decoder: Decoder) -> tuple[str, str]:
    known = sum(index in decoder.trusted_tails for index in range(len(decoder.layers)))
    if known == len(decoder.layers):
        return "by formula", "the tails of all layers agreed with autograd"
    return (
        f"by autograd in {len(decoder.layers) - known} of {len(decoder.layers)} layers",
        "their tails have no known form",
    )


def _steps(lens: LogitLens) -> str:
    """What the model does between its last layer and its logits."""
    steps = [step.function for step in lens.before], [lens.head], [step.function for step in lens.after]
    return ", ".join(_called(function) for some in steps for function in some)


def _called(function: Any) -> str:
    return type(function).__name__ if isinstance(function, nn.Module) else str(getattr(function, "__name__", function))
