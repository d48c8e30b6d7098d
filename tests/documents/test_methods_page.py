"""METHODS.md says of each method what `methods.described` says, and both know every method of this package."""

from paths import ROOT

from dexar_fast.methods import registry
from dexar_fast.methods.described import DESCRIBED


def test_the_table_holds_the_descriptions() -> None:
    lines = (ROOT / "dexar_fast" / "METHODS.md").read_text(encoding="utf-8").splitlines()
    rows = [line.strip("|").split(" | ") for line in lines if line.startswith("| `")]
    told = {
        name.strip(" `"): (cells[1].strip(), cells[-1].strip(" |"))
        for cells in rows
        if len(cells) == 7
        for name in cells[0].split(",")
    }
    assert told == {name: tuple(each) for name, each in DESCRIBED.items()}
    assert set(DESCRIBED) == {registry.DexAr.name, *registry._OURS}
