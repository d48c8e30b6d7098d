"""Takes what DEX-AR is made of, u and V of each layer, and makes a map of one's own from it."""

from pathlib import Path

import torch
from PIL import Image

from dexar_fast import Explainer
from dexar_fast.lowlevel import gradients

PICTURE = Path(__file__).parents[1] / "dexar_fast" / "assets" / "sample.png"

ex = Explainer.from_pretrained()
e = ex.explain(PICTURE, "Describe the image.")
inputs = ex.processor(images=Image.open(PICTURE).convert("RGB"), text=e.metadata["prompt"], return_tensors="pt")
is_visual = inputs["input_ids"][0] == ex.model.config.image_token_id
token = e.tokens.index(" circle")

# One pass over the answer; then the layers come one after another, and no G is made unless it is asked for.
heat = torch.zeros(int(is_visual.sum()))
for layer in gradients(ex.model, inputs, e.token_ids):
    keys = int(layer.reads[token].sum())
    print(f"layer {layer.layer}: u {list(layer.u.shape)}, V {list(layer.value.shape)}, of which {keys} keys are read")
    one = layer.gradient(slice(token, token + 1))[0]  # G of this token, [heads, keys]
    heat += one[:, : len(is_visual)][:, is_visual].square().sum(0).sqrt()  # ours: the length over heads, no filter

row, column = divmod(int(heat.argmax()), 12)
print(f"\nBy the length of G over heads '{e.tokens[token].strip()}' is hottest in row {row + 1}, column {column + 1}.")
Image.fromarray((255 * heat / heat.max()).byte().view(12, 12).numpy()).resize((240, 240)).save("length.png")
print("Look at length.png.")
