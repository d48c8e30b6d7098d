"""The evaluations of the page, by name."""

from __future__ import annotations

from dexar_fast import data
from dexar_fast.jobs.eval.plan import Evaluation

ONE_PASS = (
    "dex-ar",
    "dex-ar:head_filter=false",
    "dex-ar:token_filter=false",
    "attention",
    "attention-gradient",
    "rollout",
    "relevancy",
    "tam",
    "llava-cam",
)
EAGLE = "eagle:regions=36"
MORE = (
    "dex-ar",
    "input-gradient",
    "gradient-x-input",
    "integrated-gradients",
    "smoothgrad",
    "attn-lrp",
    "occlusion:regions=36",
    "rise",
    "shapley",
    "captum:samples=8",
    "igos++:tokens=[],side=16",
)
OF_MAPS = ("soft-iou", "iou", "epg", "snr", "pointing", "blank")
OF_WORDS = tuple(f"word-{name}" for name in OF_MAPS)
OF_TOKENS = ("token-ratio", "obj-iou", "func-iou", "f1-iou")
OF_HIDING = (
    "perturbation-positive",
    "perturbation-negative",
    "insertion",
    "deletion",
    "insertion-sensitive",
    "deletion-sensitive",
    "occlusion-rank",
    "occlusion-top",
)
OF_MORE = ("perturbation-positive", "insertion", "deletion", "occlusion-rank")
OF_SANITY = ("weights-random", "other-picture", "stability")
OF_CORRECTIONS = ("amcr", "csr")
SCENES = {"maps": 500, "shape-words": 500, "checks": 10, "hiding": 50, "corrections": 60, "more": 50}
_OPTIONS = {"shape-words": ",words=shape", "corrections": ",scenes=crowd"}  # of the data set
_ASKED = {
    "maps": (ONE_PASS, (*OF_MAPS, *OF_WORDS, *OF_TOKENS)),
    "shape-words": (ONE_PASS[:2], OF_WORDS),
    "checks": (ONE_PASS, OF_SANITY),
    "more": (MORE, (*OF_MAPS, *OF_WORDS, *OF_MORE)),
    "hiding": ((*ONE_PASS, EAGLE), (*OF_HIDING, *OF_MAPS, *OF_WORDS)),
    "corrections": ((EAGLE,), OF_CORRECTIONS),
}


def asked(name: str, scenes: int | None = None) -> Evaluation:
    """One of them: one question of each scene, all with the embedded model."""
    spelled = f"shapes:count={scenes or SCENES[name]},asked=one{_OPTIONS.get(name, '')}"
    methods, metrics = _ASKED[name]
    return Evaluation(data.of(spelled), spelled, methods, metrics)
