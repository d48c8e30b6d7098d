"""What each method's map is, and when it misleads, in a line: the columns of METHODS.md."""

from __future__ import annotations

from typing import NamedTuple


class Description(NamedTuple):
    """What a map holds, and when it misleads."""

    map: str
    misleads: str


CHANCE = Description("nothing of the model: chance", "what does not beat them has found nothing")
DESCRIBED = {
    "dex-ar": Description(
        "gradients of each layer's logit lens by attention, heads that look at text left out",
        "early layers' lenses say little; a word copied from the text shows little",
    ),
    "attention": Description(
        "mean attention of the heads, of the last layer or those chosen",
        "heads attend where nothing is read: sinks, borders",
    ),
    "attention-gradient": Description(
        "attention by its gradient, of each layer's lens or the last",
        "evidence against hides behind evidence for",
    ),
    "rollout": Description(
        "attention through all layers",
        "nearly always, as it takes no account of values",
    ),
    "relevancy": Description(
        "attention by gradient through all layers (Chefer)",
        "values and MLPs are left out",
    ),
    "tam": Description(
        "the patches' own states read by the head, less what text explains",
        "patches' states hold other patches' content",
    ),
    "llava-cam": Description(
        "Grad-CAM on a layer's MLP input",
        "gradients average out: it was hardly better than chance",
    ),
    "input-gradient": Description(
        "length of the logit's gradient at the visual embeddings",
        "it shows sensitivity, up or down, and is noisy",
    ),
    "gradient-x-input": Description("embedding times gradient", "a saturated logit has no slope"),
    "smoothgrad": Description("gradient averaged under noise", "noise leaves the embeddings that pictures have"),
    "integrated-gradients": Description(
        "shares of the change from a start",
        "the start is a choice; few steps leave some out",
    ),
    "attn-lrp": Description("relevance handed back by rules", "rules share out, they do not measure"),
    "occlusion": Description("what hiding each region costs", "two regions that say the same hide each other"),
    "rise": Description("mean of random soft masks, by what they leave", "few masks: noise of its own"),
    "shapley": Description(
        "mean gain over orders of showing regions",
        "hidden pictures are none that the model knows",
    ),
    "captum": Description("Captum's perturbation methods", "as shapley and occlusion"),
    "igos++": Description(
        "the smallest smooth part that destroys and restores",
        "a search that may end elsewhere",
    ),
    "eagle": Description("regions in the order of a greedy search", "the first region hides its rivals"),
    "random": CHANCE,
    "random-smooth": CHANCE,
    "centre": CHANCE,
    "uniform": CHANCE,
}
