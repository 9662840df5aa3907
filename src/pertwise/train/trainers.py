"""GRPO on tasks, supervised and preference tuning on rows of `sampling`, with trl.

GRPO: DeepSeekMath (2024), arXiv 2402.03300; DPO: Rafailov et al. (2023), arXiv 2305.18290. All
three write checkpoints, ``log.parquet``, ``curves.svg``, ``settings.json`` and ``model`` (a plain
model that ``transformers serve`` and ``vllm serve`` take) in their folder.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pertwise._files import json_lines, open_text
from pertwise.errors import InputError
from pertwise.train.grading import Grader
from pertwise.train.rewards import Scheme, reward
from pertwise.train.tasks import Task
from pertwise.train.tuning import Log, Tuning, adapters, begin, load_model, need, run

File = str | os.PathLike[str]


def grpo(
    tasks: Sequence[Task],
    arrays: Grader,
    model: File,
    out: File,
    *,
    how: Tuning | None = None,
    scheme: Scheme | None = None,
    resume: bool = False,
) -> tuple[Path, Log]:
    """Tune a model by the reward of its answers to training tasks.

    Returns
    -------
    Path, Log
        Folder of the tuned model; reward, its parts and the length of answers by step.

    Raises
    ------
    pertwise.errors.InputError
        When a test task is among the tasks, the batches do not hold whole groups, the model cannot
        be loaded or the folder holds another run.
    pertwise.errors.MissingDependencyError
        Without the extra `train`.
    """
    how, folder = how or Tuning(), Path(out)
    _check(tasks, how)
    trl, datasets = need("trl"), need("datasets")
    given = [str(scheme or Scheme()), *(t.model_dump_json() for t in tasks)]
    last, log = begin(folder, "grpo", str(model), how, resume, "\n".join(given))
    loaded, tokenizer = load_model(model, half=how.lora > 0)
    by_id = {t.id: t for t in tasks}
    rows = [{"prompt": [m.model_dump() for m in t.messages], "task": t.id} for t in tasks]

    def total(completions: Any, task: list[str], **_: Any) -> list[float]:
        out = []
        for said, key in zip(completions, task, strict=True):
            text = said if isinstance(said, str) else str(said[-1]["content"])
            found = reward(by_id[key], text, arrays, scheme)
            log.pending.append({**found.parts, "characters": len(text)})
            out.append(found.total)
        return out

    arguments = trl.GRPOConfig(
        **how.arguments(folder), num_generations=how.answers, temperature=how.temperature,
        max_completion_length=how.max_tokens, beta=how.beta,
        **(_vllm(longest_question(rows, tokenizer) + how.max_tokens) if how.vllm else {}),
    )  # fmt: skip
    trainer = trl.GRPOTrainer(
        model=loaded, reward_funcs=total, args=arguments, processing_class=tokenizer,
        train_dataset=datasets.Dataset.from_list(rows), peft_config=adapters(how),
    )  # fmt: skip
    return run(trainer, tokenizer, log, folder, last), log


def _vllm(length: int) -> dict[str, Any]:
    # By itself it keeps room for the longest text that a model knows, often more than there is.
    return {"use_vllm": True, "vllm_mode": "colocate", "vllm_max_model_length": length}


def longest_question(rows: Sequence[dict[str, Any]], tokenizer: Any) -> int:
    """Tokens of the longest question."""
    texts = [
        tokenizer.apply_chat_template(r["prompt"], tokenize=False, add_generation_prompt=True)
        for r in rows
    ]
    return max(map(len, tokenizer(texts, add_special_tokens=False)["input_ids"]))


def _check(tasks: Sequence[Task], how: Tuning) -> None:
    if wrong := [t.id for t in tasks if t.split != "train"]:
        raise InputError(f"task {wrong[0]!r} is a test task; a model must not be tuned on it")
    if not tasks:
        raise InputError("there is no task to tune on")
    if how.answers < 2 or (how.batch * how.accumulate) % how.answers:
        raise InputError(
            f"{how.answers} answers a task are compared, at least 2; batch x accumulate "
            f"({how.batch} x {how.accumulate}) must be a multiple of them"
        )


def sft(
    rows: File, model: File, out: File, *, how: Tuning | None = None, resume: bool = False
) -> tuple[Path, Log]:
    """Tune a model on the best answers: rows {messages}, of which the last is learnt.

    Raises
    ------
    pertwise.errors.InputError
        Names the line that is no such row; and as `grpo`.
    """
    given = [
        {"prompt": r["messages"][:-1], "completion": r["messages"][-1:]}
        for r in _rows(rows, {"messages": 2})
    ]
    return _tune("sft", given, model, Path(out), how or Tuning(), resume)


def dpo(
    rows: File, model: File, out: File, *, how: Tuning | None = None, resume: bool = False
) -> tuple[Path, Log]:
    """Tune a model on pairs of answers: rows {prompt, chosen, rejected}.

    Raises
    ------
    pertwise.errors.InputError
        As `sft`.
    """
    keys = ("prompt", "chosen", "rejected")
    given = [{k: r[k] for k in keys} for r in _rows(rows, dict.fromkeys(keys, 1))]
    return _tune("dpo", given, model, Path(out), how or Tuning(beta=0.1), resume)


def _tune(
    what: str, rows: list[dict[str, Any]], model: File, out: Path, how: Tuning, resume: bool
) -> tuple[Path, Log]:
    trl, datasets = need("trl"), need("datasets")
    last, log = begin(out, what, str(model), how, resume, json.dumps(rows))
    loaded, tokenizer = load_model(model, half=how.lora > 0)
    config, trainer = {
        "sft": (trl.SFTConfig, trl.SFTTrainer),
        "dpo": (trl.DPOConfig, trl.DPOTrainer),
    }[what]
    arguments = how.arguments(out) | {"max_length": None}
    if what == "dpo":
        arguments["beta"] = how.beta
    made = trainer(
        model=loaded, args=config(**arguments), processing_class=tokenizer,
        train_dataset=datasets.Dataset.from_list(rows), peft_config=adapters(how),
    )  # fmt: skip
    return run(made, tokenizer, log, out, last), log


def _rows(path: File, wanted: dict[str, int]) -> list[dict[str, Any]]:
    """Rows of JSON lines whose keys hold lists of at least so many messages."""
    found = []
    with open_text(Path(path), "rows to tune on") as lines:
        for number, row in json_lines(lines, path):
            if not all(_messages(row.get(k), least) for k, least in wanted.items()):
                raise InputError(
                    f"{path} line {number} has no messages {', '.join(wanted)}; "
                    "`pertwise train sample` writes such rows"
                )
            found.append(row)
    if not found:
        raise InputError(f"{path} holds no row; were all answers below --least or --margin?")
    return found


def _messages(value: Any, least: int) -> bool:
    return (
        isinstance(value, list)
        and len(value) >= least
        and all(
            isinstance(m, dict) and all(isinstance(m.get(k), str) for k in ("role", "content"))
            for m in value
        )
    )
