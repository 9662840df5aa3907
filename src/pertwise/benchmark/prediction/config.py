"""What a prediction benchmark needs to know, read from TOML and checked at once."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, ValidationInfo, model_validator

from pertwise import parts
from pertwise.config import FileName, PartName, Settings, placing
from pertwise.evaluate.specs import CellsSpec, MetricSpec
from pertwise.evaluate.splits import REGIME_WORDS, REGIMES
from pertwise.models.methods import placed_settings

#: Splits of rows that are no single regime.
ROW_KINDS = {"three-settings", "files", "predicted"}


class SplitSpec(Settings):
    """Who is held out.

    kind: ``folds`` (k-fold, repeated), ``growing`` (nested training sets), ``doubles`` (seen and
    unseen parts), ``transfer`` (train in another screen or context), ``given`` (folds of a file
    of recorded answers, `folds_from`), or a split of one's own (``path/to/file.py:Class``).
    On a screen of several contexts also a regime of rows (`pertwise.evaluate.splits.REGIMES`):
    ``compound``, ``scaffold``, ``context``, ``pair``, ``both``, ``perturbation``; or
    ``three-settings`` (compound, context and both on one page), ``files`` (the split files of PIE,
    TxPert, STATE, `evaluate.split_files`), ``predicted`` (the rows that all `files` predict).
    """

    kind: PartName = "folds"
    #: Of a split of one's own.
    settings: dict[str, Any] = Field(default_factory=dict)
    folds: int = Field(default=5, ge=2)
    shuffles: int = Field(default=3, ge=1)
    train_sizes: tuple[int, ...] = (50, 100, 200, 400)
    test_share: float = Field(default=0.2, gt=0.0, lt=1.0)
    unseen_share: float = Field(default=0.25, gt=0.0, lt=1.0)
    folds_from: FileName | None = None
    #: files: split files or folders; predicted: files of other tools' predictions.
    files: tuple[FileName, ...] = ()
    #: With methods that learn from other screens, which question is asked (`splits.SETTINGS`): the
    #: held-out perturbations are hidden in the other screens ("anywhere"), those that are measured
    #: there may be looked up ("elsewhere"), or both, in tables of their own.
    setting: Literal["both", "anywhere", "elsewhere"] = "both"
    #: transfer: file (and context) of the screen that is trained on.
    source: FileName | None = None
    source_context: str | None = None
    #: transfer: responses are in components; say true only if both files share the same basis.
    same_components: bool = False

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if bool(self.files) != (self.kind in ("files", "predicted")):
            raise ValueError('files = ["FILE", ...] goes with kind = "files" or "predicted"')
        if self.by_rows:
            return self
        part = parts.describe("split", self.kind)
        if part.facts.reads and not self.folds_from:
            raise ValueError(f'kind = "{self.kind}" needs folds_from = "FILE"')
        if self.trains_elsewhere and not (self.source or self.source_context):
            raise ValueError(
                f'kind = "{self.kind}" needs source = "FILE" or source_context = "NAME"'
            )
        return self

    @property
    def by_rows(self) -> bool:
        """Whether rows of several contexts are held out by what they are."""
        kinds = REGIMES.keys() - {"given", "dose"} | ROW_KINDS
        return REGIME_WORDS.get(self.kind, self.kind) in kinds

    @property
    def trains_elsewhere(self) -> bool:
        """Whether the training rows come from another screen or context."""
        return not self.by_rows and "source" in parts.describe("split", self.kind).facts.needs


class MethodSpec(Settings):
    """One method: `use` is a name or ``path/to/file.py:Class``; `settings` its arguments."""

    use: str
    label: str = ""
    settings: dict[str, Any] = Field(default_factory=dict)
    #: The knowledge folder is handed to the method (default) or kept from it.
    knowledge: bool = True

    @model_validator(mode="before")
    @classmethod
    def _read(cls, data: Any, info: ValidationInfo) -> Any:
        """A plain name is a method without settings; files are relative to the file of settings."""
        data = {"use": data} if isinstance(data, str) else data
        use = data.get("use") if isinstance(data, dict) else None
        if not isinstance(use, str):
            return data
        use = placing(info)(use) if parts.is_file(use) else use
        data = {**data, "use": use}
        if isinstance(data.get("settings"), dict):
            data["settings"] = placed_settings(use, data["settings"], placing(info))
        return data

    @property
    def name(self) -> str:
        """Label shown; the name or class when none was given."""
        return self.label or parts.label("predictor", self.use)


class PredictionConfig(Settings):
    """A whole benchmark. Paths in a file are relative to that file, also those in the settings of
    the built-in methods (answers, other, ledger, recorded:FILE); the settings of a class of
    one's own reach it as they are."""

    screen: FileName
    context: str | None = None
    knowledge: FileName | None = None
    #: Tables of facts about compounds, and about cell lines.
    drugs: tuple[FileName, ...] = ()
    lines: FileName | None = None
    seed: int = 0
    split: SplitSpec = Field(default_factory=SplitSpec)
    metrics: MetricSpec = Field(default_factory=MetricSpec)
    methods: tuple[MethodSpec, ...] = Field(min_length=1)
    #: Contexts that an unmeasured one borrows its mean from.
    n_related: int = Field(default=5, ge=1)
    cells: CellsSpec | None = None
    #: Graphs that named neighbours are compared with; None = the usual ones of the folder.
    graphs: tuple[str, ...] | None = None
    #: Method the others are tested against; None = all pairs.
    reference: str | None = None
    n_strata: int = Field(default=4, ge=2)
    #: Keep every predicted mean (parquet), for figures of one's own.
    keep_predictions: bool = False

    @model_validator(mode="after")
    def _names(self) -> Self:
        if self.metrics.by_row or self.metrics.only is not None or self.metrics.variable:
            raise ValueError("metrics: by_row, only and variable are those of `bench drugs`")
        labels = [m.name for m in self.methods]
        twice = sorted({name for name in labels if labels.count(name) > 1})
        if twice:
            raise ValueError(f"method label {twice[0]!r} occurs twice; give each its own label")
        if self.reference is not None and self.reference not in labels:
            # The name of a method stands for the label that it has in the tables.
            self.__dict__["reference"] = parts.label("predictor", self.reference)
        if self.reference is not None and self.reference not in labels:
            raise ValueError(f"reference {self.reference!r} is not among the methods {labels}")
        return self
