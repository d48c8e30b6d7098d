"""Reads the attention of some positions from a model that runs SDPA: no eager attention, no matrix [S, S]."""

from pathlib import Path

import torch
from PIL import Image

from dexar_fast import Explainer
from dexar_fast.lowlevel import attention_rows

PICTURE = Path(__file__).parents[1] / "dexar_fast" / "assets" / "sample.png"

ex = Explainer.from_pretrained()  # or a model of your own, with images or without: AutoModel....from_pretrained(...)
prompt = "USER: <image>\nWhich shape is yellow? ASSISTANT: The yellow shape is a circle"
inputs = ex.processor(images=Image.open(PICTURE).convert("RGB"), text=prompt, return_tensors="pt")
length = inputs["input_ids"].shape[1]

# Rows are positions of the inputs, here the last two. One forward; each layer gives [heads, rows, keys].
found = attention_rows(ex.model, inputs, rows=[-2, -1])
for layer, attention in found.items():
    sums = float(attention.sum(-1).mean())
    print(f"layer {layer}: {list(attention.shape)} of {length} keys, each row sums to {sums:.3f}")

# How much of it goes to the picture, by head, in the last layer?
is_visual = inputs["input_ids"][0] == ex.model.config.image_token_id
share = found[max(found)][:, -1, is_visual].sum(-1)
print("\nThe last token's heads look at the picture with", ", ".join(f"{x:.0%}" for x in share.tolist()))

# The mean over heads and layers, as a picture of the grid of visual tokens.
heat = torch.stack([attention[:, -1, is_visual].mean(0) for attention in found.values()]).mean(0).view(12, 12)
row, column = divmod(int(heat.argmax()), 12)
print(f"It looks most at row {row + 1}, column {column + 1} of 12 x 12.")
Image.fromarray((255 * heat / heat.max()).byte().numpy()).resize((240, 240), Image.Resampling.NEAREST).save("rows.png")
print("Look at rows.png.")
