"""Scorers with known answers for EAGLE's search: no model, only a formula over the revealed regions."""

from __future__ import annotations

import numpy as np
import torch


def pairwise(regions, tokens=2, seed=0, levels=None):
    """Log-odds with pairwise terms, in float32; probabilities rounded to few levels are full of ties."""
    rng = np.random.default_rng(seed)
    bias, single = rng.normal(size=tokens), rng.normal(size=(tokens, regions))
    pair = rng.normal(size=(tokens, regions, regions)) / regions

    def probabilities(revealed):
        bits = revealed.numpy().astype(float)
        logits = bias + bits @ single.T + np.einsum("bi,tij,bj->bt", bits, pair, bits)
        found = 1 / (1 + np.exp(-logits))
        return torch.from_numpy(found if levels is None else np.round(found * levels) / levels).float()

    return probabilities


def objects(regions, seed=0):
    """Three tokens of the picture, each on five regions of which two are enough, and a token of the language."""
    rng = np.random.default_rng(seed)
    own = [rng.choice(regions, 5, replace=False) for _ in range(3)]

    def probabilities(revealed):
        shown = torch.stack([revealed[:, torch.from_numpy(which)].sum(1) for which in own], 1)
        seen = torch.sigmoid(4.0 * shown - 6 - 0.02 * revealed.sum(1, keepdim=True))
        return torch.cat([seen, torch.full((len(revealed), 1), 0.9)], 1)

    return probabilities
