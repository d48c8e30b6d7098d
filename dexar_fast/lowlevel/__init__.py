"""The public low level: what DEX-AR is made of, for tools that explain in their own way (METHOD.md section 12).

    attention_rows(model, inputs, rows)      A of chosen queries, from a model that runs SDPA or FlashAttention
    gradients(model, inputs, target_ids)     u, V and the keys that each token reads, layer by layer; G on demand
    score_layer(u, value, ...)               scores and maps of one layer's heads, also of attention times gradient
    layer_tail_vjp(attended, residual, ...)  u of one layer from its weights, without autograd

`reference` holds the same operations under the same names in plain PyTorch, to test against in float64. The names in
`__all__` follow semantic versioning (semver.org): what breaks a caller raises the major version, before 1.0 the minor.
"""

from dexar_fast.backends import reference
from dexar_fast.backends.operands import Attention, ScoredLayer
from dexar_fast.backends.reference import LayerTail, Norm
from dexar_fast.lowlevel.per_layer import LayerGradients, gradients
from dexar_fast.lowlevel.rows import attention_rows
from dexar_fast.lowlevel.scoring import score_layer
from dexar_fast.lowlevel.tail import layer_tail_vjp

__all__ = [
    "Attention",
    "LayerGradients",
    "LayerTail",
    "Norm",
    "ScoredLayer",
    "attention_rows",
    "gradients",
    "layer_tail_vjp",
    "reference",
    "score_layer",
]
