"""What the review page shows and does: a plan on disk, read anew and changed under its lock."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pertwise._io import sha256_file
from pertwise._process import only_writer
from pertwise._text import clean_text
from pertwise.acquire.amendment import amend
from pertwise.acquire.decisions import pin, remark, sign_off, undo
from pertwise.acquire.panel import Plan
from pertwise.acquire.reopened import Question, choose_anew
from pertwise.errors import BusyError, InputError, PertwiseError
from pertwise.knowledge import Knowledge
from pertwise.report.plan_page import write_plan
from pertwise.report.review.view import coverage_changes, found_candidates, plan_view

#: Longest name of a person, and longest reason, in characters.
NAME, REASON = 120, 4000
#: Seconds to wait for another process that is just writing.
PATIENCE = 5.0


class StaleError(InputError):
    """The plan on disk is another than the one the person looked at."""


class Review:
    """One plan under review.

    Nothing is kept but what is dear to compute: every answer starts from the files, so several
    people, and the command line, may work on one plan.

    Parameters
    ----------
    plan
        plan.json, or its folder.
    knowledge
        Folder for expected information; None = the one the plan names.
    by
        Name that the page offers to sign with.

    Raises
    ------
    pertwise.errors.InputError
        When there is no readable plan.
    """

    def __init__(
        self,
        plan: str | os.PathLike[str],
        knowledge: Knowledge | str | os.PathLike[str] | None = None,
        by: str = "",
    ) -> None:
        path = Path(plan)
        self.file = path / "plan.json" if path.is_dir() else path
        self.by = by
        self._knowledge = knowledge
        self._read: tuple[tuple[int, ...], Plan, str] | None = None
        self._reading, self._writing = threading.Lock(), threading.Lock()
        self._question: Question | None = None
        self._trouble = ""
        self._ready = threading.Event()
        self._reader: threading.Thread | None = None
        self.now()

    def now(self) -> tuple[Plan, str]:
        """The plan on disk, and a word that is another after every change."""
        with self._reading:
            for _ in range(5):
                mark = self._mark()
                if self._read is not None and self._read[0] == mark:
                    break
                plan = Plan.load(self.file)
                version = f"{plan.revision}-{sha256_file(self.file)[:20]}"
                self._read = (self._mark(), plan, version)
                if mark == self._read[0]:
                    break
            assert self._read is not None  # noqa: S101
            return self._read[1], self._read[2]

    def _mark(self) -> tuple[int, ...]:
        try:
            found = self.file.stat()
        except OSError:
            return ()
        return (found.st_mtime_ns, found.st_size, found.st_ino)

    def start_reading(self) -> None:
        """`open_question` in a thread: the page is there meanwhile."""
        self._reader = threading.Thread(target=self.open_question, name="knowledge", daemon=True)
        self._reader.start()

    @property
    def busy(self) -> bool:
        """Whether the knowledge folder is still being read."""
        return self._reader is not None and self._reader.is_alive()

    def open_question(self) -> None:
        """Read what expected information needs: seconds, for a whole genome up to a minute."""
        try:
            self._question = Question.open(self.now()[0], self._knowledge)
        except PertwiseError as error:
            self._trouble = f"{error}; give the folder with --knowledge DIR"
        except Exception as error:
            self._trouble = f"the knowledge cannot be used: {type(error).__name__}"
        finally:
            self._ready.set()

    # -- what is shown -------------------------------------------------------------------------

    def view(self, known: str = "") -> dict[str, Any]:
        """Everything on the page; only {"version"} when `known` is the current version."""
        plan, version = self.now()
        ready = self._ready.is_set()
        mark = f"{version}{'+' if ready else ''}"
        if known == mark:
            return {"version": mark}
        shown = plan_view(plan, self._question)
        if self._question is None:
            words = self._trouble if ready else "reading the knowledge folder"
            shown["information"] = {"state": "none" if ready else "working", "why": words}
        return {"version": mark, "by": self.by, "file": str(self.file), **shown}

    def candidates(self, words: str, instead: str, order: str, n: int = 60) -> dict[str, Any]:
        """Candidates that may come onto the panel, in the place of `instead` or beside it."""
        return found_candidates(self.now()[0], self._question, words, instead, order, n)

    def preview(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """What a change would do to coverage and expected information; nothing is saved."""
        before, _ = self.now()
        after = self._changed(before, {**asked, "by": "-", "why": "-"})
        found: dict[str, Any] = {
            "out": [g for g in before.genes if g not in after.genes],
            "in": [g for g in after.genes if g not in before.genes],
            "coverage": coverage_changes(before, after),
        }
        if self._question is not None:
            found["before"] = self._question.worth(before.genes)
            found["after"] = self._question.worth(after.genes)
        return found

    # -- what is done --------------------------------------------------------------------------

    def change(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """Carry out one change and save it; see `_changed` for what may be asked.

        Raises
        ------
        StaleError
            When somebody changed the plan since ``asked["version"]``; nothing is saved then.
        pertwise.errors.InputError
            When it cannot be done, or the files cannot be written.
        """
        seen = _text(asked, "version", 200).removesuffix("+")
        with self._writing:
            self._patiently(lambda: self._save(asked, seen))
        return self.view()

    def _save(self, asked: Mapping[str, Any], seen: str) -> None:
        with only_writer(self.file.parent):
            before, version = self.now()
            if version != seen:
                last = before.decisions[-1] if before.decisions else None
                who = f"{last.by} {last.action} ({last.why})" if last else "somebody"
                raise StaleError(
                    f"Not saved yet: the plan changed while you were looking: {who}. What you "
                    "wrote is still here; look at the panel as it is now, then save again."
                )
            write_plan(self._changed(before, asked), self.file.parent, name=self.file.stem)

    def _patiently(self, save: Callable[[], None]) -> None:
        end = time.monotonic() + PATIENCE
        while True:
            try:
                return save()
            except BusyError:
                if time.monotonic() > end:
                    raise
            time.sleep(0.1)

    def _changed(self, plan: Plan, asked: Mapping[str, Any]) -> Plan:
        """The plan after ``asked["do"]``: replace, drop, add, pin, unpin, remark, sign, undo, anew.

        ``gene`` and ``new`` name genes; ``by`` and ``why`` are always needed.
        """
        do = _text(asked, "do", 20)
        by = clean_text(_text(asked, "by", NAME))
        why = clean_text(_text(asked, "why", REASON))
        gene, new = _text(asked, "gene", 200), _text(asked, "new", 200)
        match do:
            case "replace":
                return amend(plan, replace={gene: new}, by=by, why=why)
            case "drop":
                return amend(plan, drop=[gene], by=by, why=why)
            case "add":
                return amend(plan, add=[new], by=by, why=why)
            case "pin" | "unpin":
                return pin(plan, [gene], by=by, why=why, on=do == "pin")
            case "remark":
                return remark(plan, why, by=by, about=[gene] if gene else ())
            case "sign":
                return sign_off(plan, by=by, why=why)
            case "undo":
                return undo(plan, by=by, why=why)
            case "anew":
                if self._question is None:
                    raise InputError(
                        f"the rest cannot be chosen anew: {self._trouble or 'still reading'}"
                    )
                return choose_anew(plan, self._question, by=by, why=why)
        raise InputError(f"the page asked for {do!r}, which this version does not do")


def _text(asked: Mapping[str, Any], key: str, longest: int) -> str:
    value = asked.get(key, "")
    if not isinstance(value, str):
        raise InputError(f"{key} must be text")
    if len(value) > longest:
        raise InputError(f"{key} has {len(value)} characters, {longest} are the most")
    return value
