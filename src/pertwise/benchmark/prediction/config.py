"""What a prediction benchmark needs to know, read from TOML and checked at once."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from pertwise import parts
from pertwise._io import config_path
from pertwise.errors import InputError
from pertwise.evaluate.specs import CellsSpec, MetricSpec
from pertwise.llm.address import refuse_secrets
from pertwise.models.methods import placed_settings

_STRICT = ConfigDict(extra="forbid", frozen=True)


class SplitSpec(BaseModel):
    """Who is held out.

    kind: ``folds`` (k-fold, repeated), ``growing`` (nested training sets), ``doubles`` (seen and
    unseen parts), ``transfer`` (train in another screen or context), ``given`` (folds of a file
    of recorded answers, `folds_from`), or a split of one's own (``path/to/file.py:Class``).
    """

    model_config = _STRICT
    kind: str = "folds"
    #: Of a split of one's own.
    settings: dict[str, Any] = Field(default_factory=dict)
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
        part = parts.describe("split", self.kind)
        if part.facts.reads and not self.folds_from:
            raise ValueError(f'kind = "{self.kind}" needs folds_from = "FILE"')
        if self.trains_elsewhere and not (self.source or self.source_context):
            raise ValueError(
                f'kind = "{self.kind}" needs source = "FILE" or source_context = "NAME"'
            )
        return self

    @property
    def trains_elsewhere(self) -> bool:
        """Whether the training rows come from another screen or context."""
        return "source" in parts.describe("split", self.kind).facts.needs


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
        return self.label or parts.label("predictor", self.use)


class PredictionConfig(BaseModel):
    """A whole benchmark. Paths in a file are relative to that file, also those in the settings of
    the built-in methods (answers, other, ledger, recorded:FILE); the settings of a class of
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
            # The name of a method stands for the label that it has in the tables.
            self.__dict__["reference"] = parts.label("predictor", self.reference)
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
    try:
        data = tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"no such file: {file}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{file} is not valid TOML: {error}") from error
    refuse_secrets(data, str(file))
    for key in ("screen", "knowledge"):
        if isinstance(data.get(key), str):
            data[key] = config_path(file, data[key])
    for table, keys in (("split", ("folds_from", "source")), ("cells", ("file",))):
        for key in keys:
            if isinstance(data.get(table), dict) and isinstance(data[table].get(key), str):
                data[table][key] = config_path(file, data[table][key])
    split = data.get("split")
    if isinstance(split, dict) and parts.is_file(str(split.get("kind", ""))):
        split["kind"] = config_path(file, split["kind"])
    metrics = data.get("metrics")
    if isinstance(metrics, dict) and isinstance(metrics.get("more"), list):
        metrics["more"] = [
            config_path(file, m) if isinstance(m, str) and parts.is_file(m) else m
            for m in metrics["more"]
        ]
    methods = data.get("methods")
    if isinstance(methods, list):
        data["methods"] = [{"use": m} if isinstance(m, str) else m for m in methods]
        for method in data["methods"]:
            use = method.get("use") if isinstance(method, dict) else None
            if isinstance(use, str) and parts.is_file(use):
                use = method["use"] = config_path(file, use)
            if isinstance(use, str) and isinstance(method.get("settings"), dict):
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
