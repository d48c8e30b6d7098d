"""Whether a token rests on the picture or on the language before it."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from dexar_fast.methods.eagle.greedy.result import Curves


class Modality(NamedTuple):
    """What a token's probability is made of, averaged over the revealed area: the two add up to that average."""

    prior: Tensor  # [n] float64, its lowest probability on the way: what no region is needed for
    perception: Tensor  # [n] float64, what revealing regions adds


def modality(curves: Curves, areas: Tensor) -> Modality:
    """Prior and perception of n tokens, by the trapezoid rule over the insertion curve with the empty picture.

    The mean is over what the model sees: of a picture whose sides are cropped away, over the rest.

    Args:
        areas: [N], the share of the picture that the first k + 1 regions cover.
    """
    probability = torch.cat([curves.empty[None], curves.insertion]).double()
    area = torch.cat([areas.new_zeros(1), areas]).double()
    prior = probability.amin(0)
    return Modality(prior, torch.trapezoid(probability, area, dim=0) / area[-1] - prior)
