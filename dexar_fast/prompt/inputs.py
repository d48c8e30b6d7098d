"""Checks of inputs and answers before a model runs them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dexar_fast.errors import InputError, reason
from dexar_fast.model.cache import NAMES as CACHE_NAMES
from dexar_fast.model.modules import parameters
from dexar_fast.prompt.sampled import METADATA
from dexar_fast.vision.geometry import names_image_token, visual_positions, visual_token_ids

UNUSED_INPUTS = ("labels", METADATA)  # PaliGemma's processor makes labels; a loss over them is NaN
OWN_INPUTS = (*CACHE_NAMES, "use_cache", "logits_to_keep", "inputs_embeds", "output_attentions", "return_dict")
# How the names of image inputs begin, in every family (Pix2Struct: flattened_patches)
IMAGE_INPUTS = ("pixel", "image", "video", "flattened")
SEQUENCES = ("input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids")  # [1, P]; lists of them may be [P]


def on_device(model: Any, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The inputs the model wants, as tensors, where it wants them; an offloaded model fetches them itself.

    Raises:
        InputError: no mapping, inputs that are set here, or lists of rows that are not equally long.
    """
    if not isinstance(inputs, Mapping):
        raise InputError(f"inputs must be what the processor returns (input_ids, ...), not a {type(inputs).__name__}")
    own = [key for key in OWN_INPUTS if key in inputs]
    if own:
        raise InputError(f"inputs hold {', '.join(own)}: pass what the processor returns, the rest is set here")
    device = None if model.device.type == "meta" else model.device
    wanted = {key: value for key, value in inputs.items() if key not in UNUSED_INPUTS and value is not None}
    lists = {key for key, value in wanted.items() if isinstance(value, list) and _is_listed(model, key)}
    tensors = {key: value if key in lists else _as_tensor(key, value) for key, value in wanted.items()}
    placed = {key: value.to(device) if isinstance(value, Tensor) else value for key, value in tensors.items()}
    ids = placed.get("input_ids")
    return placed | {"input_ids": ids.long()} if isinstance(ids, Tensor) and _is_whole(ids) else placed


def _is_listed(model: Any, name: str) -> bool:
    """Whether the model's forward takes this input as a list, and not as the tensor that it would be."""
    taken = parameters(type(model).forward).get(name)
    return taken is not None and str(taken.annotation).startswith("list[")


def _is_whole(ids: Tensor) -> bool:
    return not (ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool)


def _as_tensor(name: str, value: Any) -> Any:
    """What a processor returns without return_tensors="pt": numbers in lists or arrays, as the tensor it would be."""
    if not isinstance(value, list | tuple | np.ndarray):
        return value
    try:
        array = np.asarray(_as_arrays(value))
    except ValueError as error:  # rows of several lengths
        raise InputError(f"{name} is no regular array: call the processor with return_tensors='pt'") from error
    if array.dtype.kind not in "biuf":  # text and other objects, which some models take
        return value
    tensor = torch.from_numpy(array.astype(np.float32) if array.dtype == np.float64 else array.copy())
    return tensor[None] if name in SEQUENCES and tensor.ndim == 1 else tensor


def _as_arrays(value: Any) -> Any:
    """Nested lists with arrays for the tensors in them."""
    if isinstance(value, Tensor):
        return value.detach().cpu().float().numpy() if value.dtype == torch.bfloat16 else value.detach().cpu().numpy()
    return [_as_arrays(each) for each in value] if isinstance(value, list | tuple) else value


def as_ids(target_ids: Any) -> Tensor:
    """Target ids as users hold them: a tensor, an array or a list. Raises InputError."""
    try:
        return torch.as_tensor(target_ids, device="cpu")
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"target_ids must be [T] integers: {reason(error)}") from error


def largest(config: Any, name: str) -> Any:
    """A number in a config: the largest where layers differ in it, None where the config does not say."""
    try:
        return getattr(config, name, None)
    except RuntimeError:  # transformers' AmbiguousGlobalPerLayerAttributeError
        values = [getattr(layer, name, None) for layer in config.per_layer_config]
        return max((value for value in values if value is not None), default=None)


def context(model: Any) -> int | None:
    """The most positions a model's config allows; None where it does not say."""
    return largest(model.config.get_text_config(decoder=True), "max_position_embeddings")


def vocabulary(model: Any) -> int | None:
    """How many ids there are to embed; None for a table of an unknown kind.

    For a table in an unknown wrapper: the rows of all tables in it. Only the wrapper knows which of them count.
    """
    try:
        table = model.get_input_embeddings()
    except NotImplementedError:  # transformers does not find it
        return None
    while not isinstance(getattr(table, "num_embeddings", None), int):
        inner = [getattr(table, name, None) for name in ("base_layer", "original_module")]  # PEFT's wrappers
        table = next((module for module in inner if isinstance(module, nn.Module)), None)
        if table is None:
            held = [module for module in model.get_input_embeddings().modules() if isinstance(module, nn.Embedding)]
            return sum(module.num_embeddings for module in held) or None
    inside = [module for module in table.modules() if isinstance(module, nn.Embedding) and module is not table]
    return table.num_embeddings + sum(module.num_embeddings for module in inside)  # IDEFICS adds some to it


def check_length(model: Any, prompt: int, new: int) -> None:
    """Raises InputError for a prompt and an answer, in tokens, that the model's context does not hold."""
    longest = context(model)
    if longest is not None and prompt + new > longest:
        raise InputError(
            f"the prompt of {prompt} tokens and its answer take {prompt + new}, more than the model's context of "
            f"{longest}: shorten the answer or the prompt, or give fewer or smaller images"
        )


def check_inputs(
    model: Any, inputs: Mapping[str, Any], targets: Tensor | None, new_tokens: int | None, elsewhere: bool
) -> None:
    """Raises InputError for batches, padding, missing images, impossible ids, and answers beyond the context.

    Args:
        elsewhere: whether the model may read its image elsewhere than among the ids, and do without these.
    """
    ids = inputs.get("input_ids")
    if ids is not None or not elsewhere:
        check_prompt(model, inputs, elsewhere)
    check_image(inputs)
    if elsewhere and not names_image_token(model.config):
        _check_batch(model, inputs)
    if targets is not None:
        check_targets(model, targets)
    length = 0 if ids is None or elsewhere else ids.shape[1]
    check_length(model, length, len(targets) if targets is not None else (new_tokens or 1))


def check_image(inputs: Mapping[str, Any]) -> None:
    """Raises InputError unless there is an image behind the prompt's image tokens."""
    if not any(key.startswith(IMAGE_INPUTS) for key in inputs):
        raise InputError("the inputs hold image tokens and no image: pass pixel_values, as the processor returns them")


def check_prompt(model: Any, inputs: Mapping[str, Any], elsewhere: bool) -> None:
    """Raises InputError for batches, padding and impossible ids; without an image token unless it may be elsewhere."""
    ids = inputs.get("input_ids")
    if not isinstance(ids, Tensor) or ids.ndim != 2 or ids.shape[0] != 1:
        raise InputError("inputs must hold input_ids [1, P]: explain one prompt at a time, as the processor returns it")
    if not _is_whole(ids):
        raise InputError(f"input_ids must be integers, not {ids.dtype}: pass the processor's")
    for name in ("attention_mask", "pixel_values"):
        value = inputs.get(name)
        if value is not None and not (isinstance(value, Tensor) and value.numel() > 0):
            raise InputError(f"inputs hold no tensor as {name}: call the processor with return_tensors='pt'")
    _check_mask(inputs.get("attention_mask"), ids)
    _check_places(inputs.get("position_ids"), ids)
    _check_ids(model, ids)
    if not elsewhere:
        visual_positions(model.config, ids)


def _check_batch(model: Any, inputs: Mapping[str, Any]) -> None:
    """Raises InputError for several images where no tokens of a prompt share them out: each is another prompt's."""
    for name, value in inputs.items():
        if name.startswith(IMAGE_INPUTS) and isinstance(value, Tensor) and len(value) != 1:
            raise InputError(f"{name} holds {len(value)} images, and {type(model).__name__} reads one: pass one")


def _check_mask(mask: Any, ids: Tensor) -> None:
    if mask is not None and mask.shape != ids.shape:
        raise InputError(f"attention_mask must be a tensor {list(ids.shape)} like input_ids: pass the processor's")
    if mask is not None and not bool((mask != 0).all()):
        raise InputError(
            f"the inputs are padded ({int((mask == 0).sum())} positions masked): call the processor without padding"
        )


def _check_places(places: Any, ids: Tensor) -> None:
    if places is not None and not (isinstance(places, Tensor) and places.ndim and places.shape[-1] == ids.shape[1]):
        raise InputError(f"position_ids must be a tensor [.., {ids.shape[1]}], a place for each of input_ids")


def _check_ids(model: Any, ids: Tensor) -> None:
    rows = vocabulary(model)
    words = ids[~is_visual(model, ids)]  # a placeholder need not be in the table: see `embedding_checked`
    if ids.shape[1] == 0 or int(ids.min()) < 0 or (rows is not None and bool((words >= rows).any())):
        raise InputError(f"input_ids must hold ids of the vocabulary, {_range(rows)}")


def check_targets(model: Any, targets: Tensor) -> None:
    """Raises InputError for what are no ids [T] that a model can have written."""
    if targets.ndim != 1 or not _is_whole(targets) or len(targets) == 0:
        raise InputError(f"target_ids must be [T] integers with T >= 1, not {targets.dtype} {list(targets.shape)}")
    targets, rows = targets.long(), vocabulary(model)
    if bool(is_visual(model, targets).any()):
        raise InputError("target_ids hold the model's image token: an answer is text")
    if int(targets.min()) < 0 or (rows is not None and int(targets.max()) >= rows):
        raise InputError(f"target_ids must lie in the vocabulary, {_range(rows)}")


def check_scored(targets: Tensor | None, rows: int) -> None:
    """Raises InputError for target ids that have no logit, because the head has only `rows` rows."""
    if targets is not None and int(targets.max()) >= rows:
        raise InputError(
            f"target_ids must be ids that the model can write, {_range(rows)}: its head has fewer rows than its "
            "embedding"
        )


@contextmanager
def embedding_checked(model: Any, ids: Tensor) -> Iterator[None]:
    """Inside the block, looking up an image token of ids [1, P] beyond the table of embeddings raises InputError.

    Some families replace that id before the lookup (Gemma 3n): they may have it. For the others the lookup would end
    the process on a GPU.
    """
    rows = vocabulary(model)
    if rows is None or not bool((ids >= rows).any()):
        yield
        return

    def check(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        looked_up = [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)]
        if any(bool((value >= rows).any()) for value in looked_up if not value.is_floating_point()):
            raise InputError(
                f"the model embeds its image token {int(ids.max())}, and its table has {rows} rows: call "
                "model.resize_token_embeddings(), or load the checkpoint that goes with this processor"
            )

    hook = model.get_input_embeddings().register_forward_pre_hook(check, with_kwargs=True)
    try:
        yield
    finally:
        hook.remove()


def is_visual(model: Any, ids: Tensor) -> Tensor:
    """Which ids are placeholders of an image or a video, bool; none where the model names no such id."""
    if not names_image_token(model.config):
        return torch.zeros_like(ids, dtype=torch.bool)
    return torch.isin(ids, torch.tensor(visual_token_ids(model.config), device=ids.device))


def _range(rows: int | None) -> str:
    return "none below 0" if rows is None else f"0 to {rows - 1}"
