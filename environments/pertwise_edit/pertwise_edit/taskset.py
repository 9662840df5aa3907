"""Tasks of `pertwise train tasks` and their reward."""

import functools
from pathlib import Path
from typing import Any

import verifiers.v1 as vf
from pydantic import Field

from pertwise.train.gold import gold_answer
from pertwise.train.grading import Grader
from pertwise.train.rewards import Reward, Scheme, reward
from pertwise.train.tasks import Task, read_tasks


class PertwiseData(vf.TaskData):
    """A row: the task as `pertwise train tasks` wrote it."""

    row: dict[str, Any]


class PertwiseTaskConfig(vf.TaskConfig):
    """What an answer is scored with (``--env.taskset.task.*``)."""

    screen: list[Path] = Field(default_factory=list)
    """Screens that the tasks were made from."""
    knowledge: Path | None = None
    """Knowledge folder: aliases of names then count, as they do live."""
    drugs: list[Path] = Field(default_factory=list)
    """Tables of drugs, for their other names."""
    metric: str = "pearson"
    """pearson, cosine, error, retrieval or ceiling."""
    alpha: float = 1.0
    """Of the difference to the neighbours shown."""
    beta: float = 0.1
    """Of its sign."""


@functools.lru_cache(maxsize=8)
def _grader(screen: tuple[Path, ...], knowledge: Path | None, drugs: tuple[Path, ...]) -> Grader:
    from pertwise.knowledge import Knowledge
    from pertwise.screen import read_screen

    known = None
    if knowledge is not None or drugs:
        known = Knowledge.open(knowledge, drugs=list(drugs))
    return Grader.of(*(read_screen(path) for path in screen), knowledge=known)


class PertwiseTask(vf.Task[PertwiseData, vf.State, PertwiseTaskConfig]):
    """One question; its answer is read and scored by `pertwise.train.rewards.reward`."""

    @property
    def key(self) -> str:
        return str(self.data.row["id"])

    def worth(self, answer: str, finish_reason: str = "stop") -> Reward:
        """What an answer is worth."""
        how = self.config
        grader = _grader(tuple(how.screen), how.knowledge, tuple(how.drugs))
        scheme = Scheme(how.metric, how.alpha, how.beta)
        task = Task.model_validate(self.data.row)
        return reward(task, answer, grader, scheme, finish_reason=finish_reason)

    def _of(self, trace: vf.Trace) -> Reward:
        cut = bool(trace.calls) and trace.calls[-1].finish_reason == "length"
        return self.worth(trace.last_reply, "length" if cut else "stop")

    @vf.reward(weight=1.0)
    async def measured(self, trace: vf.Trace) -> float:
        """Mean of format, validity and gain, in [0, 1]."""
        return self._of(trace).total

    @vf.metric
    async def parts(self, trace: vf.Trace) -> dict[str, float]:
        """Each of them."""
        return dict(self._of(trace).parts)

    async def validate(self, runtime: vf.Runtime) -> bool | None:
        """The best answer that can be reached scores 1, an empty one 0."""
        how = self.config
        grader = _grader(tuple(how.screen), how.knowledge, tuple(how.drugs))
        scheme = Scheme(how.metric, how.alpha, how.beta)
        task = Task.model_validate(self.data.row)
        best = self.worth(gold_answer(task, grader, scheme)).total
        return best > 0.999 and self.worth("").total == 0.0


class PertwiseConfig(vf.TasksetConfig):
    """Which tasks."""

    tasks: Path = Path("tasks.jsonl")
    """JSON lines of `pertwise train tasks`."""
    split: str = "train"
    """train, test, or empty for both."""
    kinds: list[str] = Field(default_factory=list)
    """Only these kinds: edit, pick, rate, acquire; empty = all."""
    task: PertwiseTaskConfig = PertwiseTaskConfig()


class PertwiseTaskset(vf.Taskset[PertwiseTask, PertwiseConfig]):
    """The tasks of a file, in their order."""

    def load(self) -> list[PertwiseTask]:
        """Every task of the split and kinds asked for."""
        found = read_tasks(
            self.config.tasks, split=self.config.split or None, kinds=self.config.kinds
        )
        return [PertwiseTask(_data(task), self.config.task) for task in found]


class PertwiseEnvConfig(vf.SingleAgentEnvConfig):
    """One seat; nothing is executed, so nothing needs a container."""

    agent: vf.AgentConfig = vf.AgentConfig(runtime=vf.SubprocessConfig())


class PertwiseEnv(vf.SingleAgentEnv, vf.Env[PertwiseEnvConfig]):
    """The single-agent environment, on this machine unless told otherwise."""


def _data(task: Task) -> PertwiseData:
    *before, question = task.messages
    return PertwiseData(
        id=task.id,
        name=task.id,
        system_prompt="\n\n".join(m.content for m in before) or None,
        prompt=question.content,
        row=task.model_dump(mode="json"),
    )


def load_environment(
    tasks: str | Path,
    screen: str | Path | list[str | Path],
    knowledge: str | Path | None = None,
    *,
    split: str = "train",
    kinds: tuple[str, ...] = (),
    **scoring: Any,
) -> vf.Env:
    """The environment of a tasks file.

    Parameters
    ----------
    scoring
        Of `PertwiseTaskConfig`: drugs, metric, alpha, beta.
    """
    from verifiers.v1.utils.loaders import load_environment as load

    listed = [screen] if isinstance(screen, str | Path) else list(screen)
    scored = PertwiseTaskConfig(
        screen=[Path(s) for s in listed],
        knowledge=None if knowledge is None else Path(knowledge),
        **scoring,
    )
    config = PertwiseConfig(
        id="pertwise-edit", tasks=Path(tasks), split=split, kinds=list(kinds), task=scored
    )
    return load(PertwiseEnvConfig(taskset=config))
