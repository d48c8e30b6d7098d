"""Finds out why the model answers wrongly: EAGLE ranks the regions, and the fewest are hidden until it is right."""

from dexar_fast import Explainer
from dexar_fast.data.shapes import draw_scene
from dexar_fast.methods.eagle.hallucination import diagnose
from dexar_fast.methods.eagle.method import Eagle

QUESTION = "Is there a red square?"

scene = draw_scene(132)
print("In the picture:", ", ".join(f"a {each.color} {each.shape}" for each in scene.objects))

# Which regions speak for "No", and which against it? The search shows and hides them, and asks each time.
ex = Explainer.from_pretrained()
d = diagnose(ex, scene.image, QUESTION, right="No", method=Eagle(regions=36))
print(f"{QUESTION}{d.answer}")

no = d.explanation.diagnostics["eagle"]  # p: the probability of "No"
print(f"\nWith none of the picture 'No' has p = {no['empty'][0]:.3f}; with the first regions of the ranking:")
for count in (1, d.shown, d.shown + 1):
    print(f"{count:3} of 36: p = {no['insertion'][count - 1][0]:.3f}")

# The smallest removal: the regions behind the first d.shown, which cause the wrong answer.
print(f"\nWithout {100 * d.minimal_region:.1f} % of the picture the model answers:{d.corrected}")
labels = d.explanation.grids[0].labels
for item, mask in zip(scene.objects, scene.masks, strict=True):
    hidden = [(labels[mask] == region).mean() for region in d.removed]
    print(f"What was hidden holds {100 * sum(hidden):3.0f} % of the {item.color} {item.shape}.")

d.before[0].save("before.png")
d.after[0].save("after.png")
d.explanation.to_html("why.html")
print("Look at before.png, after.png and why.html.")
