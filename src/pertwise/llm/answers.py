"""Typed answers and the JSON schemas that ask for them.

The models read generously (other field names, plain strings instead of objects) because small
models vary; what they hold is checked against the closed list elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, field_validator, model_validator

from pertwise._text import in_prompt

_NAME = AliasChoices("name", "gene", "drug", "symbol", "item", "perturbation", "compound")
_REASON = AliasChoices("reason", "justification", "rationale", "why", "explanation")
#: Other keys for the list of picks: those that say it is chosen, then those that only say of what.
_CHOSEN = (
    "selected",
    "selection",
    "selected_genes",
    "neighbours",
    "neighbors",
    "similar",
    "top_k",
    "answer",
)
_ITEMS = ("genes", "drugs", "items")


def tokens_for(n_named: int) -> int:
    """Tokens that an answer of `n_named` items, each with a sentence, amply needs."""
    return 300 + 100 * n_named


class NamedReason(BaseModel):
    """One named item with its own reason (empty when the model gave none)."""

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)
    name: str = Field(validation_alias=_NAME, min_length=1)
    reason: str = Field(default="", validation_alias=_REASON)
    module: str = ""

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @field_validator("reason", "module", mode="before")
    @classmethod
    def _none_is_empty(cls, value: Any) -> Any:
        return "" if value is None else value


def _as_list(value: Any) -> Any:
    """{"MYC": "because ..."} -> [{"name": "MYC", "reason": "because ..."}]; None -> [].

    Items that the model itself marks as not chosen are left out.
    """
    if value is None:
        return []
    if isinstance(value, list):
        return [v for v in value if not (isinstance(v, dict) and _unchosen(v))]
    if isinstance(value, dict) and not set(value) & set(_NAME.choices):
        return [
            {"name": k, **v} if isinstance(v, dict) else {"name": k, "reason": v}
            for k, v in value.items()
        ]
    return value


_KEPT = ("selected", "chosen", "include", "included", "keep", "kept", "pick", "picked", "accepted")
_ALIKE = ("match", "similar", "is_similar", "relevant")
_REJECTED = ("rejected", "excluded", "discarded", "dropped")
_GONE = ("reject", "exclud", "discard", "drop", "not ")


def _unchosen(item: dict[str, Any]) -> bool:
    said = {k: v.strip().lower() if isinstance(v, str) else v for k, v in item.items()}
    return (
        any(
            said.get(n) in (False, "false", "no")
            for n in (*_KEPT, *_ALIKE)
            if said.get(n) is not None
        )
        or any(said.get(n) in (True, "true", "yes") for n in _REJECTED)
        or any(str(said.get(n)).startswith(_GONE) for n in ("status", "decision", "verdict"))
    )


class PicksAnswer(BaseModel):
    """Ranked picks: acquisition, similar knock-downs, similar drugs.

    `bare` says that the answer was a list without any key.
    """

    KEYS: ClassVar[tuple[str, ...]] = ("picks", *_CHOSEN, *_ITEMS)
    model_config = ConfigDict(frozen=True, extra="ignore")
    picks: list[NamedReason]
    strategy: str = ""
    bare: bool = False

    @model_validator(mode="before")
    @classmethod
    def _find_list(cls, value: Any) -> Any:
        if isinstance(value, list):
            return {"picks": value, "bare": True}
        if not isinstance(value, dict):
            return value
        if _unchosen(value):
            raise ValueError("this list is marked as not chosen")
        value = {**value, "bare": False}
        if "picks" not in value:
            named = [[n for n in names if n in value] for names in (_CHOSEN, _ITEMS)]
            names = named[0] or named[1]
            if len(names) > 1:
                raise ValueError(f"which is the list of picks: {' or '.join(names)}?")
            if names:
                value["picks"] = value[names[0]]
        return value

    @field_validator("picks", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        return _as_list(value)

    @field_validator("strategy", mode="before")
    @classmethod
    def _text(cls, value: Any) -> Any:
        return value if isinstance(value, str) else ""


class EditAnswer(BaseModel):
    """Additions to and removals from a neighbour list."""

    KEYS: ClassVar[tuple[str, ...]] = (
        "add",
        "additions",
        "added",
        "remove",
        "removals",
        "removed",
    )
    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)
    add: list[NamedReason] = Field(validation_alias=AliasChoices("add", "additions", "added"))
    remove: list[NamedReason] = Field(
        validation_alias=AliasChoices("remove", "removals", "removed")
    )

    @field_validator("add", "remove", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        return _as_list(value)


class JudgeAnswer(BaseModel):
    """Which of two sets; `confidence` in 0..1."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    preference: Literal["A", "B", "tie"]
    confidence: float = Field(ge=0, le=1)
    reasons: list[str] = Field(default_factory=list)
    strengths: dict[str, list[str]] = Field(default_factory=dict)
    differentiators: list[str] = Field(default_factory=list)

    @field_validator("preference", mode="before")
    @classmethod
    def _spelling(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        word = value.strip().strip("\"'.").casefold().removeprefix("set").strip()
        return {"a": "A", "b": "B"}.get(word, "tie" if word in {"tie", "equal"} else value)

    @field_validator("confidence", mode="before")
    @classmethod
    def _scale(cls, value: Any) -> Any:
        if isinstance(value, str):
            words = {"low": 0.3, "medium": 0.6, "moderate": 0.6, "high": 0.9}
            text = value.strip().casefold()
            if text in words:
                return words[text]
            if text.endswith("%"):
                return float(text[:-1]) / 100
        return value

    @field_validator("reasons", "differentiators", mode="before")
    @classmethod
    def _several(cls, value: Any) -> Any:
        return [] if value is None else [value] if isinstance(value, str) else value

    @field_validator("strengths", mode="before")
    @classmethod
    def _by_set(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return {}
        return {k: [v] if isinstance(v, str) else v for k, v in value.items()}


class MarkedRow(BaseModel):
    """What was said of one named item: column -> mark as it was given, unchecked."""

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)
    name: str = Field(validation_alias=_NAME, min_length=1)
    marks: dict[str, Any]
    reason: str = ""


class MarksAnswer(BaseModel):
    """Rows of marks; `unreadable` counts those that name nothing or hold no columns.

    A row is {"name": ..., column: mark, ..., "reason": ...} or has its columns under "marks"; rows
    may also be an object of names. A bare list of numbers is unreadable: which column each belongs
    to would be a guess.
    """

    KEYS: ClassVar[tuple[str, ...]] = ("marks", "ratings", "rows", "perturbations", *_ITEMS)
    model_config = ConfigDict(frozen=True, extra="ignore")
    marks: list[MarkedRow]
    unreadable: int = 0

    @model_validator(mode="before")
    @classmethod
    def _find_rows(cls, value: Any) -> Any:
        if isinstance(value, dict):
            named = [k for k in cls.KEYS if k in value]
            if len(named) > 1:
                raise ValueError(f"which holds the rows: {' or '.join(named)}?")
            value = value[named[0]] if named else value
        if isinstance(value, dict):
            value = [
                {"name": k, "marks": v} if isinstance(v, dict) else None for k, v in value.items()
            ]
        if not isinstance(value, list):
            return value
        rows = [row for row in map(_marked_row, value) if row is not None]
        return {"marks": rows, "unreadable": len(value) - len(rows)}


def _marked_row(value: Any) -> dict[str, Any] | None:
    """{"name": ..., "marks": {...}, "reason": ...} of a row in any of its forms, else None."""
    if not isinstance(value, dict):
        return None
    name = next((k for k in _NAME.choices if isinstance(value.get(str(k)), str)), None)
    inner = value.get("marks", value.get("ratings"))
    if name is None or not value[str(name)] or not isinstance(inner or {}, dict):
        return None
    found = {k: v for k, v in value.items() if k not in (name, "marks", "ratings")} | (inner or {})
    why = next((str(k) for k in _REASON.choices if isinstance(found.get(str(k)), str)), "")
    return {"name": value[str(name)], "reason": found.pop(why, ""), "marks": found}


class SummaryAnswer(BaseModel):
    """One sentence about a gene."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    summary: str = Field(min_length=1)


# -- schemas ---------------------------------------------------------------------------------
# Only what both protocols' constrained decoding supports: types, enum, required,
# additionalProperties false. Numbers of items are checked on the answer instead.


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _name(names: Sequence[str] | None) -> dict[str, Any]:
    name: dict[str, Any] = {"type": "string"}
    if names is not None:
        # As the prompt shows them.
        name["enum"] = list(dict.fromkeys(map(in_prompt, names)))
    return name


def _named(names: Sequence[str] | None, module: bool = False) -> dict[str, Any]:
    fields: dict[str, Any] = {"name": _name(names)}
    if module:
        fields["module"] = {"type": "string"}
    fields["reason"] = {"type": "string"}
    return {"type": "array", "items": _object(fields)}


def picks_schema(names: Sequence[str] | None, *, module: bool = False) -> dict[str, Any]:
    """Schema of `PicksAnswer`; `names` is the closed list (None: any string)."""
    return _object({"picks": _named(names, module)})


def edit_schema(add: Sequence[str] | None, remove: Sequence[str]) -> dict[str, Any]:
    """Schema of `EditAnswer`: additions from the candidates, removals from the neighbours."""
    return _object({"add": _named(add or None), "remove": _named(remove or None)})


def marks_schema(
    names: Sequence[str] | None, columns: Sequence[str], *, reasons: bool = False
) -> dict[str, Any]:
    """Schema of `MarksAnswer`: every column a number in every row."""
    row: dict[str, Any] = {"name": _name(names)}
    row |= {column: {"type": "number"} for column in columns}
    if reasons:
        row["reason"] = {"type": "string"}
    return _object({"marks": {"type": "array", "items": _object(row)}})


def judge_schema() -> dict[str, Any]:
    """Schema of `JudgeAnswer`."""
    texts = {"type": "array", "items": {"type": "string"}}
    return _object(
        {
            "reasons": texts,
            "strengths": _object({"A": texts, "B": texts}),
            "differentiators": texts,
            "preference": {"type": "string", "enum": ["A", "B", "tie"]},
            "confidence": {"type": "number"},
        }
    )


def summary_schema() -> dict[str, Any]:
    """Schema of `SummaryAnswer`."""
    return _object({"summary": {"type": "string"}})
