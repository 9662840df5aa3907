"""Tasks asked under another system part of their prompt: what a prompt search evaluates."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pertwise._io import optional_import
from pertwise._progress import tell
from pertwise._text import clean_text, one_line
from pertwise.errors import ChatError, InputError
from pertwise.llm.base import Chat, Message
from pertwise.llm.loop import run_sync
from pertwise.llm.templates import BUILT_IN, PromptTemplate, load_prompt
from pertwise.train.answers import ask_tasks
from pertwise.train.gold import gold_answer
from pertwise.train.grading import Grader
from pertwise.train.held_out import Words, hidden_words
from pertwise.train.rewards import PARTS, Reward, Scheme, reward
from pertwise.train.tasks import Task

if TYPE_CHECKING:
    from pertwise.knowledge import Knowledge

#: The part that evolves, as gepa names it; the most characters of it that are asked.
PART, MOST = "system", 8_000
#: Most characters of a question, and of an answer, that the reflecting model is shown.
SHOWN = 6_000
#: What opens code, a value or a comment of a template.
_MARKS = ("{%", "{{", "{#")
#: `gepa` puts the instructions and the examples in the places of the two tags.
REFLECT = f"""An assistant answers questions with closed lists about perturbed cells. Its \
standing instructions were:
```
<curr_param>
```
The question follows them, with its lists and the form of the answer; these stay as they are. \
Examples of questions, what the assistant answered, and what the measurement says of it:
```
<side_info>
```
Write better standing instructions: how to judge, in general rules that hold for \
perturbations that were never measured. Name no gene, compound or cell line, repeat no list, use \
no template code (double braces, braces with % or #) and at most {MOST} characters. Give the whole \
of the new instructions within ``` marks."""


def start_of(tasks: Sequence[Task]) -> tuple[PromptTemplate, str]:
    """The built-in prompt that tasks were made with, and its system part.

    Raises
    ------
    pertwise.errors.InputError
        When they are of several prompts, of none that is built in, or of another version of it.
    """
    used = {(str(t.extra.get("prompt")), str(t.extra.get("prompt_hash"))) for t in tasks}
    parts = {m.content for t in tasks for m in t.messages if m.role == "system"}
    name, digest = next(iter(used), ("", ""))
    if (
        len(used) != 1
        or len(parts) != 1
        or name not in BUILT_IN
        or load_prompt(name).hash != digest
    ):
        told = one_line(", ".join(sorted(n for n, _ in used)), 100)
        raise InputError(
            "a search changes one built-in prompt, as it is in this version; these tasks come from "
            f"{told or 'none'}: make tasks of one kind anew with `pertwise train tasks`"
        )
    return load_prompt(name), parts.pop()


def template_with(start: PromptTemplate, text: str) -> PromptTemplate:
    """The template with another system part, taken literally; the user part stays.

    Raises
    ------
    pertwise.errors.InputError
        When the text holds what opens code of a template.
    """
    if any(mark in text for mark in _MARKS):
        raise InputError("the text holds template code")
    before, _, rest = start.text.partition("{% block system %}")
    _, _, after = rest.partition("{% endblock %}")
    block = "{% block system %}\n{% raw %}\n" + text + "\n{% endraw %}\n{% endblock %}"
    return PromptTemplate(start.name, before + block + after)


def with_system(task: Task, text: str) -> Task:
    """The task asked with another system part."""
    rest = tuple(m for m in task.messages if m.role != "system")
    return task.model_copy(update={"messages": (Message(role="system", content=text), *rest)})


def names_held_out(
    tasks: Sequence[Task], knowledge: Knowledge | None, plain: str
) -> Callable[[str], bool]:
    """Whether a text has a name that test tasks hold and training tasks do not, however spelled.

    Of a split by line these are the names of its cells. Words of `plain` are left alone; the case
    of letters matters only in names without a digit, which may be words of the language.
    """

    def named(split: str) -> set[str]:
        mine = [t for t in tasks if t.split == split]
        return {n for t in mine for n in (t.subject, *t.shown, *t.allowed)} - {""}

    cells = {t.context for t in tasks if t.split == "test"}
    cells -= {t.context for t in tasks if t.split == "train"} | {""}
    train = named("train")
    quiet = named("test") - train
    words = cells | quiet | hidden_words(quiet, train, knowledge, plain)
    exact = Words(words)
    loose = Words(w.upper() for w in words if any(map(str.isdigit, w)))
    return lambda text: any(
        True for index, said in ((exact, text), (loose, text.upper())) for _ in index.places(said)
    )


@dataclass
class Asking:
    """Tasks under a candidate: the adapter of gepa, which is not needed to make or test one.

    Attributes
    ----------
    chat, reflecting
        Who answers tasks, and who writes candidates.
    held
        Whether a text names what no candidate may name.
    first
        The system part as it was.
    seen
        Candidate -> task -> reward.
    refused
        See `Found`.
    ended
        The first error that must end the search.
    """

    chat: Chat
    reflecting: Chat
    arrays: Grader
    scheme: Scheme | None
    held: Callable[[str], bool]
    first: str
    seen: dict[str, dict[str, float]] = field(default_factory=dict)
    refused: list[dict[str, str]] = field(default_factory=list)
    ended: Exception | None = None
    # gepa asks the adapter for a proposer of its own; there is none.
    propose_new_texts: None = None

    def text(self, candidate: Mapping[str, str]) -> str:
        """A candidate as it is asked: without control characters, and nothing that opens a list."""
        text = candidate[PART]
        return text if text == self.first else clean_text(text).replace("<", "‹").strip()

    def why_not(self, text: str) -> str:
        """Why a system part is not asked; "" where it may be."""
        if text == self.first:
            return ""
        if not text:
            return "it is empty"
        if len(text) > MOST:
            return f"it is longer than {MOST} characters"
        if any(mark in text for mark in _MARKS):
            return "it holds template code"
        if self.held(text):
            return "it names what is held out"
        return ""

    def rewards(self, tasks: Sequence[Task], text: str) -> list[tuple[str, Reward]]:
        """The answer to every task and what it is worth; nothing, unasked, of one refused."""
        if why := self.why_not(text):
            if (row := {"why": why, "text": one_line(text, 400)}) not in self.refused:
                self.refused.append(row)
                tell(f"a candidate is refused: {why}")
            nothing = Reward(dict.fromkeys(PARTS, 0.0), 0.0, f"the instructions are refused: {why}")
            return [("", nothing)] * len(tasks)
        said = ask_tasks(self.chat, [with_system(t, text) for t in tasks])
        found = [(said[t.id][0], reward(t, said[t.id][0], self.arrays, self.scheme)) for t in tasks]
        made = {t.id: r.total for t, (_, r) in zip(tasks, found, strict=True)}
        self.seen.setdefault(text, {}).update(made)
        return found

    def reflect(self, prompt: str) -> str:
        """Another candidate, in words; one asked before gets another answer than the first time."""
        try:
            number = self._times.get(prompt, 0)
            said = (Message(role="user", content=clean_text(prompt)),)
            reply = run_sync(
                self.reflecting.complete(self.reflecting.request(said, replicate=number))
            )
        except Exception as error:
            self._end(error)
            raise
        self._times[prompt] = number + 1
        return reply.text

    def evaluate(
        self, batch: list[Task], candidate: dict[str, str], capture_traces: bool = False
    ) -> Any:
        """Rewards of a batch, with what a reflection reads."""
        try:
            made = self.rewards(batch, self.text(candidate))
        except Exception as error:
            self._end(error)
            raise
        base = optional_import("gepa.core.adapter", "train", "a search for prompts")
        return base.EvaluationBatch(
            outputs=[text for text, _ in made],
            scores=[found.total for _, found in made],
            trajectories=list(zip(batch, made, strict=True)) if capture_traces else None,
        )

    def make_reflective_dataset(
        self, candidate: dict[str, str], eval_batch: Any, components_to_update: list[str]
    ) -> dict[str, list[dict[str, str]]]:
        """Question, answer and reward in words, with the best reachable answer; training only."""
        rows = [
            {
                "Question": task.messages[-1].content[:SHOWN],
                "Answer": text[:SHOWN],
                "Measured": _told(found, gold_answer(task, self.arrays, self.scheme)),
            }
            for task, (text, found) in eval_batch.trajectories
        ]
        return dict.fromkeys(components_to_update, rows)

    _times: dict[str, int] = field(default_factory=dict)

    @property
    def proposed(self) -> int:
        """Candidates that were written."""
        return sum(self._times.values())

    def _end(self, error: Exception) -> None:
        # One call that failed for good costs one candidate.
        if type(error) is not ChatError:
            self.ended = self.ended or error


def _told(found: Reward, gold: str) -> str:
    parts = ", ".join(f"{name} {value:.2f}" for name, value in found.parts.items())
    wrong = f" Problem: {found.why}." if found.why else ""
    return f"Reward {found.total:.2f} of 1 ({parts}).{wrong} By the measurement best: {gold}"
