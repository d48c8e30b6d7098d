"""Why an answer is wrong: the regions that cause it, and the smallest removal that puts it right."""

from dexar_fast.methods.eagle.hallucination.diagnosing import diagnose
from dexar_fast.methods.eagle.hallucination.diagnosis import Diagnosis

__all__ = ["Diagnosis", "diagnose"]
