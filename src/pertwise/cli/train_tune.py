"""`pertwise train grpo|sft|dpo`: the trainers of `pertwise.train.trainers`."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pertwise.cli.groups import Facts, Reading
from pertwise.cli.options import OptionGroup, grouped

if TYPE_CHECKING:
    from pertwise.train.tuning import Log, Tuning

_TUNING = "Tuning"
Tasks = Annotated[Path, typer.Argument(help="Tasks of `pertwise train tasks`.")]
Screens = Annotated[list[Path], typer.Option(help="Screens the tasks were made from; repeat.")]
Metric = Annotated[
    str, typer.Option(help="Of the reward: pearson, cosine, error, retrieval, ceiling.")
]
Model = Annotated[str, typer.Option(help="Folder (or .gguf file) of the model to tune.")]
Out = Annotated[Path, typer.Option(help="Folder for checkpoints, log and model.")]
Rows = Annotated[Path, typer.Argument(help="Rows that `pertwise train sample` wrote.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint in OUT.")]
Beta = Annotated[
    float, typer.Option(help="Weight of staying near the model as it was.", rich_help_panel=_TUNING)
]


@dataclass(frozen=True)
class Tuned(OptionGroup):
    """How a model is tuned."""

    steps: Annotated[int, typer.Option(min=1, rich_help_panel=_TUNING)] = 200
    learning_rate: Annotated[float, typer.Option(rich_help_panel=_TUNING)] = 1e-5
    batch: Annotated[
        int, typer.Option(min=1, help="Answers or rows a device.", rich_help_panel=_TUNING)
    ] = 8
    accumulate: Annotated[
        int, typer.Option(min=1, help="Batches a step.", rich_help_panel=_TUNING)
    ] = 1
    lora: Annotated[
        int, typer.Option(help="Rank of adapters; 0 tunes all weights.", rich_help_panel=_TUNING)
    ] = 16
    seed: Annotated[int, typer.Option(rich_help_panel=_TUNING)] = 0
    save_every: Annotated[
        int, typer.Option(min=1, help="Steps between checkpoints.", rich_help_panel=_TUNING)
    ] = 50

    def how(self, **more: object) -> Tuning:
        """As settings of the trainers."""
        from pertwise.train.tuning import Tuning

        said = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        said.pop("given")
        return Tuning(**said, **more)  # type: ignore[arg-type]


@grouped
def grpo(
    tasks: Tasks,
    screen: Screens,
    facts: Facts,
    reading: Reading,
    tuned: Tuned,
    model: Model,
    out: Out,
    metric: Metric = "pearson",
    answers: Annotated[int, typer.Option(min=2, help="Answers a task that are compared.")] = 8,
    max_tokens: Annotated[int, typer.Option(min=1, help="Most tokens of an answer.")] = 512,
    temperature: Annotated[float, typer.Option(help="How answers are drawn.")] = 1.0,
    beta: Beta = 0.0,
    vllm: Annotated[
        bool, typer.Option("--vllm", help="Answers come from vllm in this process (GPU).")
    ] = False,
    resume: Resume = False,
) -> None:
    """Tune a model by the reward of its answers to training tasks (GRPO)."""
    from pertwise.screen import read_screen
    from pertwise.train.grading import Grader
    from pertwise.train.rewards import Scheme
    from pertwise.train.tasks import read_tasks
    from pertwise.train.trainers import grpo as train

    how = tuned.how(
        answers=answers, max_tokens=max_tokens, temperature=temperature, beta=beta, vllm=vllm
    )
    screens = [read_screen(path, **reading.settings()) for path in screen]
    arrays = Grader.of(*screens, knowledge=facts.open())
    given = read_tasks(tasks, split="train")
    _tell(*train(given, arrays, model, out, how=how, scheme=Scheme(metric=metric), resume=resume))


@grouped
def sft(rows: Rows, tuned: Tuned, model: Model, out: Out, resume: Resume = False) -> None:
    """Tune a model on the best answers (sft.jsonl)."""
    from pertwise.train.trainers import sft as train

    _tell(*train(rows, model, out, how=tuned.how(), resume=resume))


@grouped
def dpo(
    rows: Rows, tuned: Tuned, model: Model, out: Out, beta: Beta = 0.1, resume: Resume = False
) -> None:
    """Tune a model on pairs of answers, the better against the worse (preferences.jsonl)."""
    from pertwise.train.trainers import dpo as train

    _tell(*train(rows, model, out, how=tuned.how(beta=beta), resume=resume))


def _tell(folder: Path, log: Log) -> None:
    name = "reward" if any("reward" in row for row in log.rows) else "loss"
    values = [row[name] for row in log.rows if name in row]
    if values:
        some = min(10, len(values))
        first, last = sum(values[:some]) / some, sum(values[-some:]) / some
        typer.echo(f"{name}: {first:.4f} (first {some} steps) -> {last:.4f} (last {some})")
    if log.why:
        typer.echo(f"stopped early, {log.why}")
    typer.echo(f"written: {folder}, {log.path}, {log.path.with_name('curves.svg')}")
    typer.echo(f"serve it: transformers serve {folder}   (or vllm serve {folder})")
