"""Explains an answer while it is written, and stops the model once it has said what was asked for."""

from pathlib import Path

from dexar_fast import Explainer

PICTURE = Path(__file__).parents[1] / "dexar_fast" / "assets" / "sample.png"
WANTED = "yellow circle"

ex = Explainer.from_pretrained()

# A piece is the explanation of the next tokens. While you look at it, the model writes the ones behind it.
said = ""
with ex.stream(PICTURE, "Describe the image.", chunk_size=2) as stream:
    for piece in stream:
        said += piece.text
        weights = ", ".join(f"{weight:.2f}" for weight in piece.token_weights.tolist())
        print(f"tokens {piece.first + 1} to {piece.first + len(piece)}: {piece.text!r}, weights {weights}")
        if WANTED in said:
            break  # the end of the block ends the generation

# What was explained until then is an explanation like any other.
e = stream.explanation()
print(f"\nStopped after {len(e)} tokens:{e.text} ...")
e.to_gif("stopped.gif")
print("Look at stopped.gif.")
