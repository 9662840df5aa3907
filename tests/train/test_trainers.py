"""A two-layer model learns a closed list by reward; needs the extra `train`."""

import json

import numpy as np
import pytest

from pertwise.errors import InputError
from pertwise.screen import make_screen
from pertwise.train.grading import Grader
from pertwise.train.sampling import score_answers, write_samples
from pertwise.train.tasks import Task
from pertwise.train.trainers import dpo, grpo, longest_question, sft
from pertwise.train.tuning import WINDOW, Tuning, collapsed

NAMES = [f"G{i:02d}" for i in range(12)]
RNG = np.random.default_rng(3)
SCREEN = make_screen(
    RNG.normal(size=(3, 6))[np.arange(12) % 3] + 0.3 * RNG.normal(size=(12, 6)),
    NAMES, [f"program {w}" for w in "abcdef"], context="K562",
)  # fmt: skip
GRADER = Grader.of(SCREEN)


def a_task(split="train"):
    return Task(
        id="toy", kind="pick", context="K562", subject="G00", split=split,
        messages=({"role": "user", "content": "who?"},), allowed=NAMES[1:],
        extra={"n_min": 1, "n_max": 3},
    )  # fmt: skip


def answer(name):
    return json.dumps({"picks": [{"name": name, "reason": "toy"}]}, separators=(",", ":"))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A model whose words are whole answers and noise, so that a random one can be right."""
    pytest.importorskip("trl", reason="trl is not installed: pip install 'pertwise[train]'")
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, set_seed

    words = ["<pad>", "<eos>", "<unk>", "who?", *map(answer, NAMES[1:]), *"abcde"]
    inner = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>"
    )
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }} {% endfor %}"
    set_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(words), hidden_size=32, intermediate_size=64, num_hidden_layers=2,
            num_attention_heads=2, num_key_value_heads=2, pad_token_id=0, eos_token_id=1,
            bos_token_id=None, max_position_embeddings=64,
        )
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("tiny")
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


HOW = Tuning(
    steps=40, learning_rate=5e-3, batch=16, answers=16, lora=0, max_tokens=1, save_every=25
)


def test_room_for_answers_is_that_of_the_longest_question(tiny):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny)
    rows = [{"prompt": [{"role": "user", "content": "who? " * n}]} for n in (1, 5, 2)]
    assert longest_question(rows, tokenizer) == 5


def test_reward_rises_beyond_its_noise_and_resuming_is_the_same(tiny, tmp_path):
    from transformers import AutoModelForCausalLM

    whole, log = grpo([a_task()], GRADER, tiny, tmp_path / "a", how=HOW)
    rewards = np.array([r["reward"] for r in log.rows])
    assert len(rewards) == HOW.steps
    early, late = rewards[:10], rewards[-10:]
    noise = np.sqrt((early.var(ddof=1) + late.var(ddof=1)) / 10)
    assert late.mean() - early.mean() > 3 * noise
    assert (tmp_path / "a" / "curves.svg").is_file()
    # A run that ended at the checkpoint and goes on is the run that never ended.
    short = Tuning(**{**vars(HOW), "steps": 25})
    grpo([a_task()], GRADER, tiny, tmp_path / "b", how=short)
    with pytest.raises(InputError, match="holds a run"):
        grpo([a_task()], GRADER, tiny, tmp_path / "b", how=HOW)
    other = a_task().model_copy(update={"subject": "G01", "allowed": (NAMES[0], *NAMES[2:])})
    with pytest.raises(InputError, match="another data"):
        grpo([other], GRADER, tiny, tmp_path / "b", how=HOW, resume=True)
    # A checkpoint that a kill cut short is none: its state is written last.
    (tmp_path / "b" / "checkpoints" / "checkpoint-30").mkdir()
    again, second = grpo([a_task()], GRADER, tiny, tmp_path / "b", how=HOW, resume=True)
    np.testing.assert_allclose([r["reward"] for r in second.rows], rewards, atol=1e-6)
    one, two = (AutoModelForCausalLM.from_pretrained(p).state_dict() for p in (whole, again))
    for key in one:
        np.testing.assert_allclose(one[key].numpy(), two[key].numpy(), atol=1e-5)


def test_progress_is_ours_and_what_cannot_be_is_refused(tiny, tmp_path, capfd, monkeypatch):
    import pertwise._progress as progress
    from pertwise.errors import MissingDependencyError

    small = Tuning(steps=2, batch=2, answers=2, lora=0, max_tokens=1)
    for quiet in (True, False):
        monkeypatch.setitem(progress._state, "quiet", quiet)
        grpo([a_task()], GRADER, tiny, tmp_path / str(quiet), how=small)
        said = capfd.readouterr()
        assert "loss" not in said.out
        assert ("step 2 of 2: reward" in said.err) is not quiet
        assert "it/s" not in said.err
    with pytest.raises(InputError, match="no folder of a model"):
        grpo([a_task()], GRADER, "a-hub/name", tmp_path / "n", how=small)
    with pytest.raises(MissingDependencyError, match="without --vllm"):
        grpo([a_task()], GRADER, tiny, tmp_path / "v", how=Tuning(**{**vars(small), "vllm": True}))


def test_rows_of_samples_tune(tiny, tmp_path):
    said = {"toy": [answer("G03"), "a", answer("G01")]}
    write_samples(tmp_path, score_answers([a_task()], said, GRADER))
    how = Tuning(steps=3, batch=1, lora=2, beta=0.1, learning_rate=1e-3)
    for tune, name in ((sft, "sft"), (dpo, "preferences")):
        folder, log = tune(tmp_path / f"{name}.jsonl", tiny, tmp_path / f"tuned-{name}", how=how)
        assert [r["step"] for r in log.rows] == [1, 2, 3]
        # A plain model, adapters merged: what a server loads.
        assert (folder / "model.safetensors").is_file()
        assert not (folder / "adapter_config.json").exists()


def test_collapse_is_a_stated_rule():
    good = list(np.full(2 * WINDOW, 0.6))
    assert not collapsed(good)
    assert not collapsed([*good, *[0.4] * WINDOW])
    assert "collapse" in collapsed([*good, *[0.1] * WINDOW])
    assert not collapsed([0.01] * 100)


@pytest.mark.parametrize("line", ["", "no", "[1]", '{"messages": []}', '{"messages": [1, 2]}'])
def test_wrong_rows_are_named(tmp_path, line):
    (tmp_path / "r.jsonl").write_text(line, encoding="utf-8")
    with pytest.raises(InputError, match=r"r\.jsonl"):
        sft(tmp_path / "r.jsonl", "nowhere", tmp_path / "out")


def test_test_tasks_and_broken_groups_are_refused(tmp_path):
    with pytest.raises(InputError, match="test task"):
        grpo([a_task("test")], GRADER, "nowhere", tmp_path)
    with pytest.raises(InputError, match="multiple"):
        grpo([a_task()], GRADER, "nowhere", tmp_path, how=Tuning(batch=3, answers=2))


@pytest.mark.parametrize(("lora", "wanted"), [(0, "float32"), (4, "bfloat16")])
def test_weights_that_are_tuned_themselves_are_in_single_precision(
    lora, wanted, tiny, tmp_path, monkeypatch
):
    import torch

    from pertwise.train import trainers

    seen = {}

    def stop(**given):
        seen["dtype"] = next(given["model"].parameters()).dtype
        raise InputError("seen")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(trainers.need("trl"), "GRPOTrainer", stop)
    monkeypatch.setattr(Tuning, "arguments", lambda self, out: {"output_dir": str(out)})
    monkeypatch.setattr(trainers.need("trl"), "GRPOConfig", dict)
    with pytest.raises(InputError, match="seen"):
        grpo([a_task()], GRADER, tiny, tmp_path, how=Tuning(lora=lora, answers=8))
    assert seen["dtype"] == getattr(torch, wanted)
