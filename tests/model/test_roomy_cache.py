"""A cache with room gives a model what one that grows gives it."""

from __future__ import annotations

import pytest
import torch
import zoo

from dexar_fast.model.cache import RoomyLayer, roomy_cache, to_forward, truncate, whole_cache


def test_it_holds_what_a_growing_one_holds() -> None:
    """Poisoned where nothing was written; cut back, it is written over."""
    model, inputs = zoo.build("bakllava")
    length = inputs["input_ids"].shape[1]
    roomy, growing = roomy_cache(model.config, length + 3), whole_cache(model.config)
    with torch.no_grad():
        for cache in (roomy, growing):
            model(**inputs, **to_forward(model, cache), use_cache=True)
        for layer in roomy.layers:
            assert isinstance(layer, RoomyLayer)
            for whole in layer._whole:
                whole[:, :, length:] = torch.nan
        for ids in ([[5, 6, 7]], [[8, 9]]):
            truncate(roomy, length)
            truncate(growing, length)
            step = {"input_ids": torch.tensor(ids), "use_cache": True}
            found, expected = (model(**step, **to_forward(model, cache)).logits for cache in (roomy, growing))
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
            assert roomy.get_seq_length() == growing.get_seq_length() == length + len(ids[0])


def test_more_than_its_room_is_refused() -> None:
    layer = RoomyLayer(4)
    states = torch.ones(2, 1, 3, 5)
    layer.update(states, states)
    with pytest.raises(RuntimeError):
        layer.update(states, states)
    assert layer.get_seq_length() == 3
