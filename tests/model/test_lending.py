"""What of the process a loan changes, and puts back."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import zoo
from torch.backends import cuda

from dexar_fast.model.lending.session import borrowed


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    before = cuda.cudnn_sdp_enabled()
    yield
    cuda.enable_cudnn_sdp(before)


@pytest.mark.parametrize("on", [True, False])
def test_cudnn_stays_out_of_all_loans_and_comes_back_after_the_last(on: bool) -> None:
    """One model's loan may end before another's, in any order."""
    cuda.enable_cudnn_sdp(on)
    first, second = (borrowed(zoo.build("llava")[0]) for _ in range(2))
    loan = first.__enter__()
    assert not cuda.cudnn_sdp_enabled()
    second.__enter__()
    with loan.paused():
        assert not cuda.cudnn_sdp_enabled()
    first.__exit__(None, None, None)
    assert not cuda.cudnn_sdp_enabled()
    second.__exit__(None, None, None)
    assert cuda.cudnn_sdp_enabled() == on


def test_it_is_back_while_the_only_loan_is_paused() -> None:
    cuda.enable_cudnn_sdp(True)
    with borrowed(zoo.build("llava")[0]) as loan:
        with loan.paused():
            assert cuda.cudnn_sdp_enabled()
        assert not cuda.cudnn_sdp_enabled()
    assert cuda.cudnn_sdp_enabled()
