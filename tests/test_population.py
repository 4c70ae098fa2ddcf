"""A population trains its members as they would be trained alone."""

from dataclasses import replace

import pandas as pd
import pytest
import torch

from sami_tutorial.checkpoint import load_checkpoint, previous_checkpoint
from sami_tutorial.context_sac import ContextConfig
from sami_tutorial.nets import LSTM
from sami_tutorial.population import stack
from sami_tutorial.replay import Episodes
from sami_tutorial.sac import SACConfig
from sami_tutorial.train import (
    CHECKPOINT,
    Run,
    TrainConfig,
    population_update,
    train,
    train_together,
)

WINDOWS = ContextConfig(episodes=6, window=10, hidden=8, contrast_batch=3)
OWN_STEP = replace(WINDOWS, contrast_every=2, contrast_rate=1e-3, contrast_start="zero")
WHOLE = ContextConfig(episodes=4, hidden=8, contrast_batch=3)
CASES = {
    "sac": ("sac", WHOLE),
    "oracle": ("oracle", WHOLE),
    "a frozen encoder": ("random", WINDOWS),
    "whole episodes": ("tesac", WHOLE),
    "windows": ("tesac", WINDOWS),
    "pearl": ("pearl", WHOLE),
    "contrast of whole episodes": ("satesac", WHOLE),
    "contrast of windows": ("ccm", WINDOWS),
    "an optimiser step of its own": ("satesac", OWN_STEP),
    "negatives of any task": ("saccm", OWN_STEP),
    "the official code's loss": ("satesac", replace(WINDOWS, loss="bce", skill_weight="none")),
    "windows at any time": ("satesac", replace(WINDOWS, contrast_phase="free")),
}


def config(method: str = "tesac", context: ContextConfig = WINDOWS, **changes) -> TrainConfig:
    settings = TrainConfig(
        env="sami/CubeMove-v0",
        method=method,
        steps=8 * 40 * 12,
        num_envs=12,
        warmup_steps=8 * 40 * 9,
        update_every=8,
        batch_size=16,
        replay_capacity=8 * 40 * 12,
        env_options={},
        sac=SACConfig(hidden=(8, 8), standardize=True),
        context=context,
    )
    return replace(settings, **changes)


def seeds(settings: TrainConfig, *numbers: int) -> list[TrainConfig]:
    return [replace(settings, seed=number) for number in numbers]


def weights(result) -> dict[str, torch.Tensor]:
    return result.agent.state_dict()


@pytest.mark.parametrize("case", CASES)
def test_each_member_ends_where_it_would_end_alone(case):
    configs = seeds(config(*CASES[case]), 3, 4, 11)
    together = train_together(configs, progress=False)
    for settings, member in zip(configs, together, strict=True):
        alone = train(settings, progress=False)
        assert alone.curve["updates"].iloc[-1] >= 10
        if alone.config.method in ("ccm", "satesac", "saccm"):
            assert alone.curve["contrastive_loss"].notna().any()
        for name, value in weights(alone).items():
            torch.testing.assert_close(weights(member)[name], value, atol=1e-5, rtol=1e-5, msg=name)
        pd.testing.assert_frame_equal(
            member.curve.drop(columns="wall_seconds"),
            alone.curve.drop(columns="wall_seconds"),
            rtol=1e-3,
            atol=1e-4,
        )
    first, second = weights(together[0]), weights(together[1])
    assert not torch.equal(first["actor.mlp.layers.0.weight"], second["actor.mlp.layers.0.weight"])


def test_a_member_without_trajectories_to_compare_waits_for_none(monkeypatch):
    configs = seeds(config("satesac", OWN_STEP), 3, 4)

    def late(run, contrast=Run.contrast):  # seed 4 finds its trajectories later
        def drawn(generator):
            found = contrast(run, generator)
            return None if run.config.seed == 4 and run.updates < 5 else found

        return drawn

    init = Run.__init__

    def patched(run, *arguments):
        init(run, *arguments)
        run.contrast = late(run)

    monkeypatch.setattr(Run, "__init__", patched)
    together = train_together(configs, progress=False)
    for settings, member in zip(configs, together, strict=True):
        for name, value in weights(train(settings, progress=False)).items():
            torch.testing.assert_close(weights(member)[name], value, atol=1e-5, rtol=1e-5, msg=name)


class Killed(Exception):
    pass


def test_a_killed_population_goes_on_where_it_was(tmp_path):
    configs = seeds(config("satesac", OWN_STEP), 3, 4)
    whole = train_together(configs, [tmp_path / "a", tmp_path / "b"], progress=False)

    def kill(run):
        if run.round == 7:
            raise Killed

    directories = [tmp_path / "c", tmp_path / "d"]
    with pytest.raises(Killed):
        train_together(configs, directories, checkpoint_seconds=0, progress=False, on_round=kill)
    # Say that the kill came between the two checkpoints of a round: one member is a round behind.
    behind = directories[0]
    (behind / "checkpoint.previous.safetensors").replace(behind / "checkpoint.safetensors")
    resumed = train_together(configs, directories, progress=False)
    for one, other in zip(whole, resumed, strict=True):
        assert list(one.curve["env_steps"]) == list(other.curve["env_steps"])
        for name, value in weights(one).items():
            torch.testing.assert_close(weights(other)[name], value, atol=1e-5, rtol=1e-5, msg=name)


def test_what_a_member_catches_up_with_at_the_very_end_is_kept(tmp_path):
    configs = seeds(config("sac", WHOLE), 3, 4)
    directories = [tmp_path / "a", tmp_path / "b"]
    whole = train_together(configs, directories, checkpoint_seconds=0, progress=False)
    # Say that the kill came between the last two checkpoints that were written.
    last = directories[1] / CHECKPOINT
    previous_checkpoint(last).replace(last)
    assert load_checkpoint(last, configs[1].to_json()).counters["env_steps"] < configs[1].steps
    train_together(configs, directories, checkpoint_seconds=3600, progress=False)
    kept = load_checkpoint(last, configs[1].to_json())
    assert kept.counters["env_steps"] == configs[1].steps
    for name, value in weights(whole[1]).items():
        torch.testing.assert_close(kept.tensors[f"agent.{name}"], value, atol=1e-5, rtol=1e-5)


def test_a_member_can_go_on_alone(tmp_path):
    configs = seeds(config(), 3, 4)
    directories = [tmp_path / "a", tmp_path / "b"]

    def kill(run):
        if run.round == 7:
            raise Killed

    with pytest.raises(Killed):
        train_together(configs, directories, checkpoint_seconds=0, progress=False, on_round=kill)
    went_on = train(configs[1], directories[1], progress=False)
    for name, value in weights(train(configs[1], progress=False)).items():
        torch.testing.assert_close(weights(went_on)[name], value, atol=1e-5, rtol=1e-5, msg=name)


def test_members_stay_views_of_the_stack():
    runs = [Run(each) for each in seeds(config("tesac"), 3, 4)]
    update = population_update(runs)
    for _ in zip(*(run.turns() for run in runs), strict=False):
        if all(run.env_steps >= 8 * 40 * 9 for run in runs):
            break
    before = [run.agent.encoder.head.weight.clone() for run in runs]
    update()
    whole = runs[0].agent.encoder.head.weight.untyped_storage().data_ptr()
    for run, old in zip(runs, before, strict=True):
        assert not torch.equal(run.agent.encoder.head.weight, old)
        assert run.agent.encoder.head.weight.untyped_storage().data_ptr() == whole


def test_the_stacked_lstm_is_the_single_one():
    torch.manual_seed(0)
    members = [LSTM(5, 7) for _ in range(3)]
    stacked = LSTM(5, 7)
    for name, _ in list(stacked.named_parameters()):
        parts = [getattr(member, name).detach() for member in members]
        setattr(stacked, name, torch.nn.Parameter(torch.stack(parts)))
    x, hidden, cell = torch.randn(3, 4, 6, 5), torch.randn(3, 4, 7), torch.randn(3, 4, 7)
    for memory in (None, (hidden, cell)):
        output, behind = stacked(x, memory)
        for i, member in enumerate(members):
            each = None if memory is None else (hidden[i], cell[i])
            expected, expected_behind = member(x[i], each)
            torch.testing.assert_close(output[i], expected)
            torch.testing.assert_close(behind[0][i], expected_behind[0])
            torch.testing.assert_close(behind[1][i], expected_behind[1])


def test_batches_are_stacked_field_by_field():
    def episodes(value: float) -> Episodes:
        return Episodes(*(torch.full((2, 3), value) for _ in range(6)), start=None)

    whole, number, nothing = stack([(episodes(1.0), 7, None), (episodes(2.0), 7, None)])
    assert isinstance(whole, Episodes)
    assert whole.reward.shape == (2, 2, 3)
    assert whole.reward[:, 0, 0].tolist() == [1.0, 2.0]
    assert whole.start is None and number == 7 and nothing is None


@pytest.mark.parametrize(
    ("configs", "directories", "message"),
    [
        ([], None, "configs is empty"),
        ([config("sac"), config("oracle", seed=1)], None, "differ in more than the seed"),
        (seeds(config(), 1, 1), None, r"seeds are \[1, 1\]"),
        (seeds(config(), 1, 2), ["a", "./a"], "a directory of its own"),
        (seeds(config(), 1, 2), ["a"], "for each of the 2 configs"),
        (seeds(config(), 1, 2), ["a", "b", "a"], "for each of the 2 configs"),
    ],
)
def test_what_is_no_population(configs, directories, message):
    with pytest.raises(ValueError, match=message):
        train_together(configs, directories, progress=False)
