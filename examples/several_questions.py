"""Asks several questions about one picture: the picture runs through the model once, each answer has its own maps."""

from pathlib import Path

from dexar_fast import Explainer, compare_html

PICTURE = Path(__file__).parents[1] / "dexar_fast" / "assets" / "sample.png"
QUESTIONS = ["Which shape is yellow?", "What color is the triangle?", "Is there a red star?"]

ex = Explainer.from_pretrained()
answers = ex.explain_many(PICTURE, QUESTIONS)
for question, e in zip(QUESTIONS, answers, strict=True):
    token = int(e.token_weights.argmax())
    weightiest = f"{e.tokens[token].strip()!r} with {float(e.token_weights[token]):.2f}"
    print(f"{question:28}{e.text:32} rests most on the picture at {weightiest}")

# Several answers to one question: which of them finds more in the picture?
print()
claims = ["A yellow circle.", "A purple heart."]
for claim, e in zip(claims, ex.explain_many(PICTURE, "Describe the image.", claims), strict=True):
    print(f"{claim:20} total weight {float(e.token_weights.sum()):.2f}")

compare_html(answers, "questions.html", titles=QUESTIONS)
print("\nLook at questions.html: the three side by side.")
