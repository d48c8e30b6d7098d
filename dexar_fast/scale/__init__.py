"""Explaining on many machines, with Ray."""

from dexar_fast.scale.mapping import ray_map

__all__ = ["ray_map"]
