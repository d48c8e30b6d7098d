"""The folder of a job. `pandas.read_parquet(folder)` reads its table: names that begin with _ are not part of it."""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from dexar_fast.errors import FileError, cause
from dexar_fast.explanation import Explanation
from dexar_fast.files import write_atomically
from dexar_fast.jobs.finished.ledger import begun

TABLE, PAGE = "tokens.parquet", "_report.html"
EXPLANATIONS, PICTURES, FINISHED = "_explanations", "_pictures", "_finished"


@dataclass(frozen=True)
class Folder:
    """Where the results of a job lie.

    `tokens.parquet`: the table. `_report.html`: a page to look at. `_explanations/00000012.safetensors`: what
    `Explanation.load` reads, by the item's index. `_pictures/00000012.png`: its map over its picture.
    `_finished/0-of-1.jsonl`: what each worker has finished.
    """

    path: Path

    def make(self, pictures: bool) -> None:
        """Makes the folder, and those in it. Raises FileError."""
        try:
            for name in (EXPLANATIONS, FINISHED, *([PICTURES] if pictures else [])):
                (self.path / name).mkdir(parents=True, exist_ok=True)
        except (OSError, ValueError) as error:
            raise FileError(f"cannot make the folder {self.path} ({cause(error)}): choose another") from error

    def ledgers(self) -> list[Path]:
        """The ledgers of all workers that have begun."""
        return sorted(filter(begun, (self.path / FINISHED).glob("*.jsonl")))

    def ledger(self, rank: int, world: int) -> Path:
        return self.path / FINISHED / f"{rank}-of-{world}.jsonl"

    def explanation(self, index: int) -> Path:
        return self.path / EXPLANATIONS / f"{index:08}.safetensors"

    def write(self, index: int, found: Explanation, picture: bool) -> None:
        """Writes the files of an item, without the pictures that it explains. Raises FileError."""
        found.save(self.explanation(index), images=False)
        if picture and found.grids:
            data = BytesIO()
            found.overlay().save(data, "PNG")
            write_atomically(self.path / PICTURES / f"{index:08}.png", data.getvalue())
