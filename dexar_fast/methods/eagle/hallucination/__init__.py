"""Why an answer is wrong: the regions that cause it, and the smallest removal that puts it right."""

from dexar_fast.methods.eagle.hallucination.diagnosing import diagnose
from dexar_fast.methods.eagle.hallucination.diagnosis import Diagnosis
from dexar_fast.methods.eagle.hallucination.removal import minimal_region

__all__ = ["Diagnosis", "diagnose", "minimal_region"]
