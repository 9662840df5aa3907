"""Facts that a biologist asks for beside every candidate, and conditions on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from pertwise.acquire.candidates import Pool
from pertwise.acquire.panel import LeftOut
from pertwise.acquire.targets import LOGGED
from pertwise.errors import InputError
from pertwise.kernels.ratings import mark_kernels
from pertwise.knowledge import Knowledge
from pertwise.knowledge.facts import FactTable, parse_conditions
from pertwise.knowledge.programs import named_by
from pertwise.knowledge.ratings import STRENGTH
from pertwise.screen import Screen

#: Columns that come from the screen and the marks.
EXPRESSION = "expression in controls"
CONTROL = "control mean"
MARK = "mark of "
#: Folded names of a column of facts that says which genes nearly every line needs.
ESSENTIAL = ("essential", "commonessential", "coreessential", "panessential")
_YES = ("yes", "true", "y", "t", "1", "essential")


def known_facts(
    names: Sequence[str],
    screen: Screen | None,
    knowledge: Knowledge | None,
    features: Sequence[str] | None = None,
    facts: FactTable | None = None,
    approved: Mapping[str, str] | None = None,
) -> pd.DataFrame:
    """One row a name: what the screen, the marks and a user's table know; no column that is empty.

    Expression of the perturbed gene in the controls, where the features of the screen are genes and
    its control means are known (mean of log(1 + x); in another unit the column says so); marks of
    strength and of the programs that target `features` are named after; then the columns of
    `facts`. `approved`: name -> approved symbol.
    """
    symbols = dict(approved or {})
    if approved is None and knowledge is not None:
        symbols = dict(knowledge.canonical(names))
    columns: dict[str, Any] = {}
    if screen is not None and len(screen.contexts) == 1:
        level = dict(zip(screen.features, map(float, screen.control_mean[0]), strict=True))
        unit = str(screen.meta.get("unit") or LOGGED)
        if knowledge is not None:
            approved_as = knowledge.canonical(list(level))
            level = {approved_as.get(f, f): v for f, v in level.items()} | level
        columns[EXPRESSION if unit.startswith(LOGGED) else f"{CONTROL} ({unit})"] = [
            level.get(n, level.get(symbols.get(n, n), float("nan"))) for n in names
        ]
    for table in mark_kernels(knowledge):
        programs = [named_by(f, table.ratings.programs) for f in features or ()]
        where = table.places(names)
        for program in dict.fromkeys([*filter(None, programs), STRENGTH]):
            if program == STRENGTH:
                values = table.strength(names)
            else:
                marks = table.ratings.marks[:, table.ratings.programs.index(program)]
                values = np.where(where >= 0, marks[where], np.nan)
            # The first table of several speaks, as everywhere.
            columns.setdefault(MARK + program, [float(v) for v in values])
    found = pd.DataFrame(columns, index=list(names)).dropna(axis=1, how="all")
    if facts is not None:
        of_table = {} if knowledge is None else dict(knowledge.canonical(list(facts.table.index)))
        own = facts.take(names, {**of_table, **symbols})
        found = found.join(own.rename(columns={c: f"{c} (facts)" for c in own if c in found}))
    return found


def essential_genes(facts: FactTable | None, knowledge: Knowledge | None) -> frozenset[str]:
    """Approved symbols of which a column called `ESSENTIAL` says yes (yes, true, 1, essential).

    A column with other numbers (a fitness score) is a fact like any other: what is low is for its
    reader to say.
    """
    found: set[str] = set()
    for name, column in () if facts is None else facts.table.items():
        if "".join(c for c in str(name).casefold() if c.isalnum()) not in ESSENTIAL:
            continue
        known = column.dropna()
        if pd.api.types.is_numeric_dtype(known):
            found |= set(known.index[known == 1]) if known.isin([0, 1]).all() else set()
        else:
            found |= set(known.index[known.str.casefold().isin(_YES)])
    symbols = {} if knowledge is None else dict(knowledge.canonical(sorted(found)))
    return frozenset(symbols.get(n, n) for n in found)


def shown_fact(name: str, value: Any) -> str:
    """A fact in words, "" where it is missing."""
    if value is None or value is pd.NA or value != value:
        return ""
    return f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}"


def required(
    pool: Pool,
    conditions: Sequence[str],
    screen: Screen | None,
    knowledge: Knowledge,
    features: Sequence[str] | None,
    facts: FactTable | None,
) -> tuple[Pool, tuple[str, ...]]:
    """The pool without candidates that fail a condition, and what to know about it.

    A candidate of which the fact is not known does not meet the condition; those are counted and
    named. Pinned names stay: a person decided.

    Raises
    ------
    pertwise.errors.InputError
        A condition that cannot be read, or one that nobody meets.
    """
    if not conditions:
        return pool, ()
    names = [*pool.candidates, *pool.pinned]
    table = known_facts(names, screen, knowledge, features, facts, pool.symbols)
    if not len(table.columns):
        raise InputError(
            "--require compares facts, and there are none: give --facts FILE (a table with a "
            "column of perturbations), or marks with --ratings"
        )
    out: dict[str, str] = {}
    notes = []
    for condition in (c for text in conditions for c in parse_conditions(text, table)):
        met = {n: condition.holds(v) for n, v in zip(names, table[condition.column], strict=True)}
        unknown = [n for n in pool.candidates if met[n] is None]
        for name in pool.candidates:
            if met[name] is None:
                out.setdefault(name, f"{condition.column} is not known, and {condition} is asked")
            elif not met[name]:
                value = shown_fact(condition.column, table.loc[name, condition.column])
                out.setdefault(name, f"{value}, and {condition} is asked")
        if unknown:
            some = ", ".join(unknown[:5]) + (" ..." if len(unknown) > 5 else "")
            notes.append(
                f"{condition}: {len(unknown)} candidates have no such fact and were left out "
                f"({some})"
            )
        notes += [
            f"{n} is pinned although {condition} does not hold for it"
            for n in pool.pinned
            if met[n] is not True
        ]
    kept = tuple(c for c in pool.candidates if c not in out)
    if not kept and not pool.pinned:
        raise InputError(
            f"no candidate is left: none of {len(pool.candidates)} meets "
            f"{' and '.join(conditions)} ({next(iter(out))}: {next(iter(out.values()))})"
        )
    left = tuple(LeftOut(gene=n, kind="requirement", why=why) for n, why in out.items())
    return replace(pool, candidates=kept, left_out=(*pool.left_out, *left)), tuple(notes)
