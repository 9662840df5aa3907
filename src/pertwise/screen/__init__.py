"""What was measured: screens, their readers, pseudobulk, splits, a simulator."""

from pertwise.screen.core import (
    COMBINATION,
    Screen,
    canonical_perturbation,
    make_obs,
    make_screen,
)
from pertwise.screen.read import read_screen
from pertwise.screen.scan import PseudobulkSettings
from pertwise.screen.simulate import Simulation, Truth, simulate_screen

__all__ = [
    "COMBINATION",
    "PseudobulkSettings",
    "Screen",
    "Simulation",
    "Truth",
    "canonical_perturbation",
    "make_obs",
    "make_screen",
    "read_screen",
    "simulate_screen",
]
