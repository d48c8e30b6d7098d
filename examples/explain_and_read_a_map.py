"""Explains an answer about a picture, and reads what the map of its weightiest token says."""

from pathlib import Path

from dexar_fast import Explainer

PICTURE = Path(__file__).parents[1] / "dexar_fast" / "assets" / "sample.png"

ex = Explainer.from_pretrained()  # the embedded model; or the name of a model on the Hub
e = ex.explain(PICTURE, "Describe the image.")
print(f"The model answers:{e.text}\n")

# A token's weight says how far the image outweighed the text for it: 0 means that some text key mattered more.
for token, weight in zip(e.tokens, e.token_weights.tolist(), strict=True):
    print(f"{token:>10}  {weight:4.2f}  {'#' * round(10 * weight)}")

# Its map is a grid over the picture, scaled to [0, 1]: where the hottest cell lies, the token's evidence lies.
token = int(e.token_weights.argmax())
heat = e.heatmap(token)  # [rows, columns]
row, column = divmod(int(heat.argmax()), heat.shape[1])
print(f"\n'{e.tokens[token].strip()}' weighs most. Its map, [rows, columns] = {list(heat.shape)}, from cold to hot:\n")
for line in heat:
    print("   ", " ".join(".:+*#"[min(4, int(5 * value))] for value in line))
print(f"\nIt is hottest in row {row + 1}, column {column + 1}.")

# How the layers share the work; and all of it as a page to explore.
layers = e.layer_weights[token]
print("Its layers weigh", ", ".join(f"{weight:.2f}" for weight in layers.tolist()))
e.overlay(token).save("token.png")
e.to_html("report.html")
print("Look at token.png and report.html.")
