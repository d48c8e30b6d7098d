"""Every operation of a layer (gradient, head scores, head filter, maps, cache moves), and which backend takes it."""
