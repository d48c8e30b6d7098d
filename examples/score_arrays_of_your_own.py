"""Runs the operations alone, on arrays from anywhere, and beside their reference in float64."""

import torch

from dexar_fast.lowlevel import Attention, LayerTail, Norm, layer_tail_vjp, reference, score_layer

TOKENS, HEADS, KV_HEADS, KEYS, DIM, WIDTH, INNER = 4, 8, 2, 50, 16, 96, 200
torch.manual_seed(0)

# What lies behind a layer's attention, by its weights: here a Llama block at random.
tail = LayerTail(
    o_proj=(torch.randn(WIDTH, HEADS * DIM) / 11, None),
    norm=Norm(torch.ones(WIDTH), eps=1e-6),
    up=(torch.randn(INNER, WIDTH) / 10, None),
    gate=(torch.randn(INNER, WIDTH) / 10, None),
    down=(torch.randn(WIDTH, INNER) / 14, None),
    activation="silu",
)
attended, residual, rows = torch.randn(TOKENS, HEADS * DIM), torch.randn(TOKENS, WIDTH), torch.randn(TOKENS, WIDTH)
u = layer_tail_vjp(attended, residual, tail, Norm(torch.ones(WIDTH), eps=1e-6), rows).view(TOKENS, HEADS, DIM)
print(f"u = d logit / d attention output: {list(u.shape)}, no graph")

# Scores and maps of the layer: keys 5 to 29 are the picture's, the others text; each query reads what is before it.
value, reads = torch.randn(KV_HEADS, KEYS, DIM), torch.ones(TOKENS, KEYS, dtype=torch.bool).tril(KEYS - TOKENS)
visual, text = torch.arange(5, 30), torch.cat([torch.arange(5), torch.arange(30, KEYS)])
found = score_layer(u, value, visual, text, reads)
print(f"map {list(found.token_map.shape)}, heads that pass: {int((found.visual_score > found.text_score).sum())} of 32")

# The same times the attention's probabilities, from queries, keys and the log-sum-exp that FlashAttention keeps.
query, key = torch.randn(TOKENS, HEADS, DIM), torch.randn(KV_HEADS, KEYS, DIM)
scores = torch.einsum("thd,hsd->ths", query, key.repeat_interleave(HEADS // KV_HEADS, 0)) / DIM**0.5
log_sum_exp = scores.masked_fill(~reads[:, None], -torch.inf).logsumexp(-1)
by = Attention(query, key, log_sum_exp, DIM**-0.5)
weighted = score_layer(u, value, visual, text, reads, weighted_by=by)
exact = reference.score_layer(u.double(), value.double(), visual, text, reads, weighted_by=by)
print(f"times attention, off the reference by {float((weighted.token_map - exact.token_map).abs().max()):.0e}")
