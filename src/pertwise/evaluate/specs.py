"""What a scoring run needs to know: which metrics, which single cells."""

from __future__ import annotations

from pydantic import Field

from pertwise import parts
from pertwise.config import FileName, PartName, Settings
from pertwise.evaluate.retrieval import DISTANCES, Distance

#: Name under which the answer-seeing bound is asked for.
ORACLE = "oracle"
#: Rows of a result table that describe the answer rather than score it.
DIAGNOSTICS = ("coverage_50", "coverage_80", "coverage_90", "coverage_95", "spread", "error")


class MetricSpec(Settings):
    """Which metrics; see `pertwise.evaluate.score`."""

    tops: tuple[int, ...] = (20, 50, 100)
    include_target: bool = False
    retrieval: tuple[Distance, ...] = DISTANCES
    #: Shown first, tested, and used by the report's strata.
    main: tuple[str, ...] = ("squared_error", "cosine", "pearson_reference", "retrieval_l2")
    #: Further metrics: names of parts, such as ``path/to/file.py:Class``; shown after `main`.
    more: tuple[PartName, ...] = ()
    #: A table of one row a signature instead of tidy scores (`sides.signature_table`), of these
    #: metrics alone (None: all that the screen's unit allows) ...
    by_row: bool = False
    only: tuple[PartName, ...] | None = None
    #: ... also on the features that vary most over the training rows.
    variable: tuple[int, ...] = ()

    @property
    def shown(self) -> tuple[str, ...]:
        """Columns of the main tables."""
        return tuple(dict.fromkeys((*self.main, *(parts.label("metric", m) for m in self.more))))


class CellsSpec(Settings):
    """Single cells of the same screen, for energy distances and split-half ceilings."""

    file: FileName
    perturbation_column: str = "perturbation"
    control: str = "control"
    max_cells: int = Field(default=300, ge=4)
    n_splits: int = Field(default=10, ge=1)
