"""What a replay of acquisition rounds needs to know, read from TOML and checked at once."""

from __future__ import annotations

import hashlib
import json
import os
from itertools import product
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from pertwise._files import read_toml
from pertwise._io import config_path
from pertwise.errors import InputError

_STRICT = ConfigDict(extra="forbid", frozen=True)


class TargetSpec(BaseModel):
    """What the panel should teach: features of the screen, a pathway for annotation, or both.

    `features` are names or globs (``"*erythroid*"``); empty = all features. `pathway` is a name of
    the knowledge folder, a gmt file or a gene list. With `pathway_outputs` the features are the
    genes of the pathway itself (for screens whose features are genes). `global_weight` in [0, 1)
    mixes the mean over *all* features into the score: 0 = only the target.
    """

    model_config = _STRICT
    name: str
    features: tuple[str, ...] = ()
    pathway: str | None = None
    pathway_outputs: bool = False
    #: feature name or glob -> relative weight; features not named weigh 1.
    weights: dict[str, float] = Field(default_factory=dict)
    global_weight: float = Field(default=0.0, ge=0.0, lt=1.0)


class Protocol(BaseModel):
    """How rounds are replayed; the defaults are those of the first paper.

    Held out: `heldout` of the perturbations, the same for all strategies of one seed. No initial
    set. `rounds` is cut to what the pool can give, and the run says so.
    """

    model_config = _STRICT
    heldout: float = Field(default=0.1, gt=0.0, lt=0.9)
    batch: tuple[int, ...] = (20,)
    rounds: int = Field(default=10, ge=1)
    initial: tuple[int, ...] = (0,)
    seeds: int = Field(default=3, ge=1)
    first_seed: int = 0
    shortlist: int = Field(default=200, ge=1)

    @field_validator("batch", "initial", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return (value,) if isinstance(value, int) else value


class AcquisitionConfig(BaseModel):
    """One run: a screen, targets, strategies, predictors and the protocol.

    `strategies` and `predictors` map a label to its settings; a plain list of names is accepted.
    The settings key ``use`` names the strategy or predictor when the label is something else, as
    in ``[strategies.llm_small] use = "llm"``.
    """

    model_config = _STRICT
    screen: str
    knowledge: str | None = None
    context: str | None = None
    targets: tuple[TargetSpec, ...] = (TargetSpec(name="whole response"),)
    strategies: dict[str, dict[str, Any]]
    predictors: dict[str, dict[str, Any]] = {"kernel ridge": {}}
    protocol: Protocol = Protocol()
    embedding: str = "auto"
    name: str = "acquisition"

    @field_validator("strategies", "predictors", mode="before")
    @classmethod
    def _list_of_names(cls, value: Any) -> Any:
        return {name: {} for name in value} if isinstance(value, list | tuple) else value

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        names = [t.name for t in self.targets]
        if len(set(names)) != len(names):
            raise ValueError(f"target names must differ, got {names}")
        if not self.strategies:
            raise ValueError("name at least one strategy")
        if not self.predictors:
            raise ValueError("name at least one predictor")
        if not self.targets:
            raise ValueError("name at least one target")
        return self

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> AcquisitionConfig:
        """Read a TOML file; relative file names in it are relative to the TOML's folder.

        Raises
        ------
        pertwise.errors.InputError
            If the file is missing, is not TOML, or a setting is unknown or out of range.
        """
        source = Path(path)
        if not source.is_file():
            raise InputError(f"{source}: there is no such config file")
        values = read_toml(source)
        for key in ("screen", "knowledge"):
            if isinstance(values.get(key), str):
                values[key] = str(Path(config_path(source, values[key])).resolve())
        return cls.parse(values, where=str(source))

    @classmethod
    def parse(cls, values: dict[str, Any], where: str = "settings") -> AcquisitionConfig:
        """Validate; every problem is named with its place."""
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            lines = [
                f"{'.'.join(map(str, e['loc'])) or 'config'}: {e['msg']}" for e in error.errors()
            ]
            raise InputError(f"{where}: " + "; ".join(lines)) from None


class Unit(BaseModel):
    """One independent piece of work: (target, predictor, strategy, initial, batch, seed).

    `target` is "*" for a strategy that does not look at the target: its picks are the same for
    all of them, so one replay is scored on each.
    """

    model_config = _STRICT
    target: str
    predictor: str
    strategy: str
    initial: int
    batch: int
    seed: int

    @property
    def key(self) -> str:
        """Name of the unit's file: readable, and unique by a hash of all fields."""
        payload = json.dumps(self.model_dump(), sort_keys=True)
        digest = hashlib.sha256(payload.encode()).hexdigest()[:10]
        label = f"{self.strategy}-{self.predictor}-s{self.seed}"
        safe = "".join(c if c.isalnum() or c in "-_" else "_" for c in label)
        return f"{safe}-{digest}"


def units(config: AcquisitionConfig, target_free: frozenset[str]) -> tuple[Unit, ...]:
    """All units of a run, seeds outermost, so that a partial run is balanced over methods.

    Parameters
    ----------
    target_free
        Labels of strategies whose picks do not depend on the target.
    """
    protocol = config.protocol
    seeds = range(protocol.first_seed, protocol.first_seed + protocol.seeds)
    names = [t.name for t in config.targets]
    found = []
    for seed, batch, initial, predictor, strategy in product(
        seeds, protocol.batch, protocol.initial, config.predictors, config.strategies
    ):
        for target in ["*"] if strategy in target_free else names:
            found.append(
                Unit(
                    target=target,
                    predictor=predictor,
                    strategy=strategy,
                    initial=initial,
                    batch=batch,
                    seed=seed,
                )
            )
    return tuple(found)


Executor = Literal["serial", "processes", "dask"]
