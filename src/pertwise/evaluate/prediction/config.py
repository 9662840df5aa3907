"""What a prediction benchmark needs to know, read from TOML and checked at once."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from pertwise._files import read_toml
from pertwise._io import config_path
from pertwise.errors import InputError
from pertwise.evaluate.methods import placed_settings
from pertwise.evaluate.retrieval import DISTANCES, Distance

_STRICT = ConfigDict(extra="forbid", frozen=True)
#: Name under which the answer-seeing bound is asked for.
ORACLE = "oracle"


class SplitSpec(BaseModel):
    """Who is held out.

    kind: ``folds`` (k-fold, repeated), ``growing`` (nested training sets), ``doubles`` (seen and
    unseen parts), ``transfer`` (train in another screen or context), ``given`` (folds of a file
    of recorded answers, `folds_from`).
    """

    model_config = _STRICT
    kind: Literal["folds", "growing", "doubles", "transfer", "given"] = "folds"
    folds: int = Field(default=5, ge=2)
    shuffles: int = Field(default=3, ge=1)
    train_sizes: tuple[int, ...] = (50, 100, 200, 400)
    test_share: float = Field(default=0.2, gt=0.0, lt=1.0)
    unseen_share: float = Field(default=0.25, gt=0.0, lt=1.0)
    folds_from: str | None = None
    #: transfer: file (and context) of the screen that is trained on.
    source: str | None = None
    source_context: str | None = None
    #: transfer: responses are in components; say true only if both files share the same basis.
    same_components: bool = False

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.kind == "given" and not self.folds_from:
            raise ValueError('kind = "given" needs folds_from = "FILE"')
        if self.kind == "transfer" and not (self.source or self.source_context):
            raise ValueError('kind = "transfer" needs source = "FILE" or source_context = "NAME"')
        return self


class MetricSpec(BaseModel):
    """Which metrics; see `pertwise.evaluate.score`."""

    model_config = _STRICT
    tops: tuple[int, ...] = (20, 50, 100)
    include_target: bool = False
    retrieval: tuple[Distance, ...] = DISTANCES
    #: Shown first, tested, and used by the report's strata.
    main: tuple[str, ...] = ("squared_error", "cosine", "pearson_reference", "retrieval_l2")


class MethodSpec(BaseModel):
    """One method: `use` is a name or ``path/to/file.py:Class``; `settings` its arguments."""

    model_config = _STRICT
    use: str
    label: str = ""
    settings: dict[str, Any] = Field(default_factory=dict)
    #: The knowledge folder is handed to the method (default) or kept from it.
    knowledge: bool = True

    @property
    def name(self) -> str:
        """Label shown; the name or class when none was given."""
        return self.label or self.use.rpartition(":")[2]


class CellsSpec(BaseModel):
    """Single cells of the same screen, for energy distances and split-half ceilings."""

    model_config = _STRICT
    file: str
    perturbation_column: str = "perturbation"
    control: str = "control"
    max_cells: int = Field(default=300, ge=4)
    n_splits: int = Field(default=10, ge=1)


class PredictionConfig(BaseModel):
    """A whole benchmark. Paths in a file are relative to that file, also those in the settings of
    the methods of the catalogue (answers, other, ledger, recorded:FILE); the settings of a class of
    one's own reach it as they are."""

    model_config = _STRICT
    screen: str
    context: str | None = None
    knowledge: str | None = None
    seed: int = 0
    split: SplitSpec = Field(default_factory=SplitSpec)
    metrics: MetricSpec = Field(default_factory=MetricSpec)
    methods: tuple[MethodSpec, ...] = Field(min_length=1)
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
        labels = [m.name for m in self.methods]
        twice = sorted({name for name in labels if labels.count(name) > 1})
        if twice:
            raise ValueError(f"method label {twice[0]!r} occurs twice; give each its own label")
        if self.reference is not None and self.reference not in labels:
            raise ValueError(f"reference {self.reference!r} is not among the methods {labels}")
        return self


def load_config(path: str | os.PathLike[str]) -> PredictionConfig:
    """Read a TOML file; methods may be written as plain names.

    Raises
    ------
    pertwise.errors.InputError
        Names the file and every field at fault.
    """
    file = Path(path)
    data = read_toml(file)
    for key in ("screen", "knowledge"):
        if isinstance(data.get(key), str):
            data[key] = config_path(file, data[key])
    for table, keys in (("split", ("folds_from", "source")), ("cells", ("file",))):
        for key in keys:
            if isinstance(data.get(table), dict) and isinstance(data[table].get(key), str):
                data[table][key] = config_path(file, data[table][key])
    methods = data.get("methods")
    if isinstance(methods, list):
        data["methods"] = [{"use": m} if isinstance(m, str) else m for m in methods]
        for method in data["methods"]:
            use = method.get("use") if isinstance(method, dict) else None
            if isinstance(use, str) and ".py:" in use:
                method["use"] = config_path(file, use)
            elif isinstance(use, str) and isinstance(method.get("settings"), dict):
                method["settings"] = placed_settings(
                    use, method["settings"], lambda value: config_path(file, value)
                )
    return check_config(data, str(file))


def check_config(data: dict[str, Any], where: str = "settings") -> PredictionConfig:
    """Validate settings given as a dictionary; errors name `where` and the fields."""
    try:
        return PredictionConfig.model_validate(data)
    except ValidationError as error:
        lines = [
            f"{'.'.join(map(str, e['loc'])) or 'settings'}: {e['msg']}" for e in error.errors()
        ]
        raise InputError(f"{where}: " + "; ".join(lines)) from None
