"""Closed-list questions about perturbation screens as a verifiers environment."""

from pertwise_edit.harness import OneAnswerHarness
from pertwise_edit.taskset import PertwiseEnv, PertwiseTaskset, load_environment

__all__ = ["OneAnswerHarness", "PertwiseEnv", "PertwiseTaskset", "load_environment"]
