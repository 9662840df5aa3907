"""What the trainers share: settings, loading, a log with a rule for collapse, saving."""

from __future__ import annotations

import importlib.util
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from pertwise._files import read_json_object
from pertwise._io import atomic_path, optional_import, sha256_text, write_json_atomic
from pertwise._progress import tell
from pertwise.errors import InputError, MissingDependencyError

if TYPE_CHECKING:
    from types import ModuleType

#: Steps whose mean the rule for collapse looks at, and the share of the best such mean kept.
WINDOW, KEPT = 20, 0.5


@dataclass(frozen=True)
class Tuning:
    """How a model is tuned.

    Attributes
    ----------
    steps, learning_rate, batch, accumulate
        Optimiser steps, their (constant) rate, answers or rows a device and step, and how many
        such batches make a step.
    lora
        Rank of the adapters on all linear layers; 0 tunes every weight.
    seed, save_every
        Of everything drawn; steps between checkpoints.
    answers, max_tokens, temperature
        GRPO: answers a task that are compared, their most tokens, how they are drawn.
    beta
        GRPO and DPO: weight of staying near the model as it was.
    vllm
        GRPO: answers come from vllm in the same process (needs a GPU).
    """

    steps: int = 200
    learning_rate: float = 1e-5
    batch: int = 8
    accumulate: int = 1
    lora: int = 16
    seed: int = 0
    save_every: int = 50
    answers: int = 8
    max_tokens: int = 512
    temperature: float = 1.0
    beta: float = 0.0
    vllm: bool = False

    def __post_init__(self) -> None:
        counts = (self.steps, self.batch, self.accumulate, self.save_every, self.max_tokens)
        if min(counts) < 1 or self.lora < 0 or self.beta < 0:
            raise InputError("steps, batch, accumulate, save_every and max_tokens start at 1, "
                             "lora and beta at 0")  # fmt: skip
        if not (self.learning_rate > 0 and self.temperature > 0):
            raise InputError("learning_rate and temperature must be above 0")

    def arguments(self, out: Path) -> dict[str, Any]:
        """What every configuration of trl is given.

        Raises
        ------
        pertwise.errors.MissingDependencyError
            When answers shall come from vllm and there is none, or no GPU for it.
        """
        gpu = need("torch").cuda.is_available()
        if self.vllm and not (gpu and importlib.util.find_spec("vllm")):
            raise MissingDependencyError(
                "answers from vllm need a GPU and the package 'vllm' (pip install vllm); without "
                "--vllm the trainer draws them itself"
            )
        return {
            "output_dir": str(out / "checkpoints"),
            "max_steps": self.steps,
            "learning_rate": self.learning_rate,
            "lr_scheduler_type": "constant",
            "per_device_train_batch_size": self.batch,
            "gradient_accumulation_steps": self.accumulate,
            "seed": self.seed,
            "save_steps": self.save_every,
            "save_total_limit": 2,
            "logging_steps": 1,
            "report_to": "none",
            "disable_tqdm": True,
            "use_cpu": not gpu,
            "bf16": gpu,
            # Recomputed activations save memory that a CPU has, and cost the time it lacks.
            "gradient_checkpointing": gpu,
        }


def need(module: str) -> ModuleType:
    """A module of the extra `train`.

    Raises
    ------
    pertwise.errors.MissingDependencyError
        Names the line of pip that brings it.
    """
    return optional_import(module, "train", "tuning a model")


def load_model(path: str | os.PathLike[str], *, half: bool = True) -> tuple[Any, Any]:
    """Model and tokenizer of a folder (or of a ``.gguf`` file).

    Weights are in single precision on CPU, and on a GPU unless `half`: then in bfloat16, in which
    the small steps of tuning these very weights would be lost.

    Raises
    ------
    pertwise.errors.InputError
        When there is no such model.
    """
    transformers, torch = need("transformers"), need("torch")
    file = Path(path)
    # A name that is no path would be looked up in a hub: what is tuned is what lies here.
    if not (file.is_dir() or (file.is_file() and file.suffix == ".gguf")):
        raise InputError(
            f"{path} is no folder of a model and no .gguf file; `hf download NAME --local-dir DIR` "
            "fetches one"
        )
    gguf = {"gguf_file": file.name} if file.suffix == ".gguf" else {}
    if gguf:
        need("gguf")
    source = str(file.parent if gguf else path)
    dtype = torch.bfloat16 if half and torch.cuda.is_available() else torch.float32
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(source, **gguf)
        model = transformers.AutoModelForCausalLM.from_pretrained(source, dtype=dtype, **gguf)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{path} cannot be loaded as a model: {error}") from error
    if gguf:
        _unmark(model)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return model, tokenizer


def _unmark(model: Any) -> None:
    """The weights are plain numbers once loaded; with the marks on, nothing can be saved."""
    for name in ("hf_quantizer", "quantization_method"):
        model.__dict__.pop(name, None)
    model.is_quantized = False
    model.config.__dict__.pop("quantization_config", None)


def collapsed(rewards: Sequence[float]) -> str:
    """Why training should stop, or "".

    It stops when the mean reward of the last `WINDOW` steps falls below `KEPT` times the best mean
    of as many steps before (at least 0.05).
    """
    if len(rewards) < 2 * WINDOW:
        return ""
    means = np.convolve(rewards, np.ones(WINDOW) / WINDOW, mode="valid")
    best, now = float(means[:-WINDOW].max(initial=means[0])), float(means[-1])
    if best >= 0.05 and now < KEPT * best:
        return f"collapse: mean reward of {WINDOW} steps fell from {best:.3f} to {now:.3f}"
    return ""


class Log:
    """Rows of a run, one a step: written at every step, so that a killed run keeps them.

    Attributes
    ----------
    rows
        Logged numbers, `step` first.
    why
        Why training was stopped early, or "".
    """

    def __init__(self, out: Path, resumed_at: int) -> None:
        self.path, self.why = out / "log.parquet", ""
        self.rows: list[dict[str, float]] = []
        self.pending: list[dict[str, float]] = []
        if resumed_at and self.path.is_file():
            kept = pd.read_parquet(self.path)
            self.rows = kept[kept["step"] <= resumed_at].to_dict("records")

    def add(self, step: int, logs: Mapping[str, Any], write: bool = True) -> None:
        """One step, with the mean of what rewards noted since the last; sets `why`."""
        if not any(k in logs for k in ("loss", "reward")):
            return
        numbers = {k: float(v) for k, v in logs.items() if isinstance(v, (int, float))}
        noted = pd.DataFrame(self.pending).mean().to_dict() if self.pending else {}
        self.pending.clear()
        self.rows.append({"step": step, **numbers, **noted})
        if write:
            with atomic_path(self.path) as temporary:
                pd.DataFrame(self.rows).to_parquet(temporary)
        losses = (numbers.get("loss", 0.0), numbers.get("grad_norm", 0.0))
        if not all(map(math.isfinite, losses)):
            self.why = f"loss or gradient is not finite at step {step}"
        else:
            self.why = collapsed([r["reward"] for r in self.rows if "reward" in r])

    def draw(self) -> Path:
        """curves.svg: reward and its parts, length, share readable and valid; or the loss."""
        from matplotlib.figure import Figure

        table = pd.DataFrame(self.rows)
        shown = [c for c in ("reward", "format", "validity", "gain", "characters") if c in table]
        figure = Figure(figsize=(2.6 * max(len(shown), 1), 2.4), layout="constrained")
        for axis, name in zip(
            np.ravel(figure.subplots(1, max(len(shown), 1))), shown or ["loss"], strict=True
        ):
            if name in table:
                axis.plot(table["step"], table[name], color="0.75", lw=0.8)
                axis.plot(table["step"], table[name].rolling(10, min_periods=1).mean(), color="k")
            axis.set(title=name, xlabel="step")
        path = self.path.with_name("curves.svg")
        with atomic_path(path) as temporary:
            figure.savefig(temporary, format="svg")
        return path


def run(trainer: Any, tokenizer: Any, log: Log, out: Path, last: str | None) -> Path:
    """Train (from the checkpoint `last`), then save a plain model that can be served."""

    def on_log(self: Any, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        # Logged rewards are those of all processes: every one of them stops, or none does.
        log.add(state.global_step, logs or {}, write=state.is_world_process_zero)
        if logs and "loss" in logs and state.is_world_process_zero:
            said = ", ".join(f"{k} {float(logs[k]):.3f}" for k in ("reward", "loss") if k in logs)
            tell(f"step {state.global_step} of {state.max_steps}: {said}")
        if log.why:
            control.should_training_stop = True

    base = need("transformers").TrainerCallback
    trainer.remove_callback(need("transformers").PrinterCallback)
    trainer.add_callback(type("Watch", (base,), {"on_log": on_log})())
    trainer.train(resume_from_checkpoint=last)
    folder = out / "model"
    if not trainer.is_world_process_zero():
        return folder
    model = trainer.accelerator.unwrap_model(trainer.model)
    if hasattr(model, "merge_and_unload"):
        model = model.merge_and_unload()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    if log.rows:
        log.draw()
    return folder


def last_checkpoint(folder: Path) -> Path | None:
    """The last checkpoint that was written to its end: the state of the trainer comes last."""
    found: dict[int, Path] = {}
    for path in folder.glob("checkpoint-*"):
        number = path.name.rpartition("-")[2]
        try:
            read_json_object(path / "trainer_state.json", "state of a run")
        except InputError:
            continue
        if number.isdecimal():
            found[int(number)] = path
    return found[max(found)] if found else None


def begin(
    out: Path, what: str, model: str, how: Tuning, resume: bool, data: str
) -> tuple[str | None, Log]:
    """The checkpoint to go on from, and the log; refuses a folder that holds another run.

    `data` stands for what is learnt from, in words of which a digest is kept.

    Raises
    ------
    pertwise.errors.InputError
        When `out` holds checkpoints and `resume` is not said, or they are of other settings.
    """
    need("transformers").set_seed(how.seed)
    # One place says how far a run is (`_progress`); bars of others would not heed --quiet.
    need("transformers").utils.logging.disable_progress_bar()
    need("datasets").disable_progress_bars()
    checkpoints, file = out / "checkpoints", out / "settings.json"
    last = last_checkpoint(checkpoints)
    said = {"what": what, "model": model, "data": sha256_text(data)[:16], **asdict(how)}
    if last is not None and not resume:
        raise InputError(f"{checkpoints} holds a run; resume it, or name another folder")
    if last is not None and file.is_file():
        before = read_json_object(file, "settings of a run")
        if other := [k for k in said if k != "steps" and before.get(k) != said[k]]:
            raise InputError(f"{out} was begun with another {', '.join(other)}: see {file}")
    write_json_atomic(file, said)
    if last is None:
        return None, Log(out, 0)
    return str(last), Log(out, int(last.name.rpartition("-")[2]))


def adapters(how: Tuning) -> Any:
    """LoRA on every linear layer, or None."""
    if not how.lora:
        return None
    return need("peft").LoraConfig(
        r=how.lora, lora_alpha=2 * how.lora, target_modules="all-linear", task_type="CAUSAL_LM"
    )
