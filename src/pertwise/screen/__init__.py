"""What was measured: screens, their readers, pseudobulk, splits, a simulator."""

from pertwise.screen.core import (
    COMBINATION,
    Screen,
    canonical_perturbation,
    make_obs,
    make_screen,
)

__all__ = ["COMBINATION", "Screen", "canonical_perturbation", "make_obs", "make_screen"]
