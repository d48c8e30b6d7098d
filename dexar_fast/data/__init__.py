"""Data to explain: readers of published layouts and of your own, one type of item, and scenes drawn here.

Nothing is downloaded, unless you name a data set of the Hub.
"""

from dexar_fast.data.dataset import DataSet
from dexar_fast.data.item import Item, Phrase, Region
from dexar_fast.data.registry import help_of, names, of, read

__all__ = ["DataSet", "Item", "Phrase", "Region", "help_of", "names", "of", "read"]
