"""What a replay of acquisition rounds needs to know, read from TOML and checked at once."""

from __future__ import annotations

from itertools import product
from typing import Any, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from pertwise import parts
from pertwise.config import FileName, Settings, placing
from pertwise.models.methods import placed_settings


class TargetSpec(Settings):
    """What the panel should teach: features of the screen, a pathway for annotation, or both.

    `features` are names or globs (``"*erythroid*"``); empty = all features. `pathway` is a name of
    the knowledge folder, a gmt file or a gene list. With `pathway_outputs` the features are the
    genes of the pathway itself (for screens whose features are genes). `global_weight` in [0, 1)
    mixes the mean over *all* features into the score: 0 = only the target.
    """

    name: str
    features: tuple[str, ...] = ()
    pathway: str | None = None
    pathway_outputs: bool = False
    #: feature name or glob -> relative weight; features not named weigh 1.
    weights: dict[str, float] = Field(default_factory=dict)
    global_weight: float = Field(default=0.0, ge=0.0, lt=1.0)


class Protocol(Settings):
    """How rounds are replayed; the defaults are those of the first paper.

    Held out: `heldout` of the perturbations, the same for all strategies of one seed. No initial
    set. `rounds` is cut to what the pool can give, and the run says so.
    """

    heldout: float = Field(default=0.1, gt=0.0, lt=0.9)
    batch: tuple[int, ...] = (20,)
    rounds: int = Field(default=10, ge=1)
    initial: tuple[int, ...] = (0,)
    seeds: int = Field(default=3, ge=1)
    first_seed: int = 0
    shortlist: int = Field(default=200, ge=1)
    #: With predictors that learn from other screens: held-out perturbations are hidden in those
    #: ("anywhere"), or only those measured there are scored, and may be looked up ("elsewhere").
    setting: Literal["anywhere", "elsewhere"] = "anywhere"

    @field_validator("batch", "initial", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return (value,) if isinstance(value, int) else value


def _kernel_ridge() -> dict[str, dict[str, Any]]:
    return {"kernel ridge": {}}


class AcquisitionConfig(Settings):
    """One run: a screen, targets, strategies, predictors and the protocol.

    `strategies` and `predictors` map a label to its settings; a plain list of names is accepted.
    The settings key ``use`` names the strategy or predictor when the label is something else, as
    in ``[strategies.llm_small] use = "llm"``.
    """

    screen: FileName
    knowledge: FileName | None = None
    #: Tables of marks: knowledge for strategies and predictors (`ratings = false` keeps them off).
    ratings: tuple[FileName, ...] = ()
    context: str | None = None
    targets: tuple[TargetSpec, ...] = (TargetSpec(name="whole response"),)
    strategies: dict[str, dict[str, Any]]
    predictors: dict[str, dict[str, Any]] = Field(default_factory=_kernel_ridge)
    protocol: Protocol = Protocol()
    embedding: str = "auto"
    name: str = "acquisition"

    @field_validator("strategies", "predictors", mode="before")
    @classmethod
    def _list_of_names(cls, value: Any, info: ValidationInfo) -> Any:
        if not isinstance(value, list | tuple):
            return value
        kind = {"strategies": "strategy", "predictors": "predictor"}[str(info.field_name)]
        names = [placing(info)(n) if parts.is_file(n) else n for n in map(str, value)]
        labels = {parts.label(kind, name): name for name in names}
        return {label: {} if label == name else {"use": name} for label, name in labels.items()}

    @field_validator("strategies", "predictors")
    @classmethod
    def _placed(
        cls, value: dict[str, dict[str, Any]], info: ValidationInfo
    ) -> dict[str, dict[str, Any]]:
        """Files of one's own classes and of recorded answers are relative to that of settings."""
        out = {}
        for label, settings in value.items():
            use = str(settings.get("use", label))
            own = parts.is_file(use)
            use = placing(info)(use) if own else use
            placed = {**settings, "use": use} if own else dict(settings)
            if info.field_name == "predictors":
                placed = placed_settings(use, placed, placing(info))
            out[label] = placed
        return out

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


class Curve(Settings):
    """What one unit replays: (target, predictor, strategy, initial, batch, seed).

    `target` is "*" for a strategy that does not look at the target: its picks are the same for
    all of them, so one replay is scored on each.
    """

    target: str
    predictor: str
    strategy: str
    initial: int
    batch: int
    seed: int


def curves(config: AcquisitionConfig, target_free: frozenset[str]) -> tuple[Curve, ...]:
    """All curves of a run, seeds outermost, so that a partial run is balanced over methods.

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
                Curve(
                    target=target,
                    predictor=predictor,
                    strategy=strategy,
                    initial=initial,
                    batch=batch,
                    seed=seed,
                )
            )
    return tuple(found)
