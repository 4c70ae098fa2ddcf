"""Chapter 10 stacks networks and LSTMs, and cuts windows, in plain code; the library agrees."""

import numpy as np
import pytest
import torch
from notebook_cells import tagged_cells
from torch import nn

from sami_tutorial.encoder import ContextEncoder, Start, history
from sami_tutorial.nets import LSTM, MLP
from sami_tutorial.population import stack_agents
from sami_tutorial.results import load_table, provenance
from sami_tutorial.sac import SAC, SACConfig


@pytest.fixture(scope="module")
def chapter():
    return tagged_cells("10_making_it_fast", "from-scratch")


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def layers_of(mlp: MLP) -> list[tuple[torch.Tensor, torch.Tensor]]:
    return [(layer.weight.detach().clone(), layer.bias.detach().clone()) for layer in mlp.layers]


def test_forward_is_the_librarys_with_and_without_a_leading_axis(chapter):
    for lead in ((), (4,)):
        mlp = MLP((3, 8, 8, 2), generator(), lead)
        x = torch.randn(*lead, 5, 3, generator=generator(1))
        torch.testing.assert_close(chapter["forward"](layers_of(mlp), x), mlp(x))


def test_stacking_keeps_each_member(chapter):
    members = [chapter["random_network"]((3, 8, 2), generator(seed)) for seed in range(3)]
    x = torch.randn(3, 5, 3, generator=generator(9))
    together = chapter["forward"](chapter["stack_networks"](members), x)
    for k, member in enumerate(members):
        torch.testing.assert_close(together[k], chapter["forward"](member, x[k]))
    assert not torch.allclose(together[0], together[1])


def test_training_the_stack_is_training_each_and_is_the_librarys_population(chapter):
    agents = [SAC(3, 1, SACConfig(hidden=(8,), learning_rate=1e-2), seed=seed) for seed in (0, 1)]
    members = [layers_of(agent.actor.mlp) for agent in agents]
    x = torch.randn(2, 16, 3, generator=generator(2))
    y = torch.randn(2, 16, 2, generator=generator(3))
    steps = 50
    train = chapter["train_networks"]
    together = train(chapter["stack_networks"](members), x, y, steps)

    population = stack_agents(agents, SAC(3, 1, SACConfig(hidden=(8,), learning_rate=1e-2)))
    for _ in range(steps):
        population.step("actor", ((population.actor.mlp(x) - y) ** 2).mean(dim=(-2, -1)))

    for k, agent in enumerate(agents):
        alone = train(members[k], x[k], y[k], steps)
        library = layers_of(agent.actor.mlp)  # views of the stack
        for one, ours, theirs, start in zip(alone, together, library, members[k], strict=True):
            for i in range(2):  # weight, bias
                torch.testing.assert_close(ours[i][k], one[i], atol=1e-5, rtol=1e-5)
                torch.testing.assert_close(theirs[i], one[i], atol=1e-5, rtol=1e-5)
                assert (one[i] - start[i]).abs().max() > 0.05


def test_stacked_lstm_is_the_librarys(chapter):
    torch.manual_seed(0)
    singles = [LSTM(5, 7) for _ in range(3)]
    stacked = LSTM(5, 7)
    for name, _ in list(stacked.named_parameters()):
        parts = [getattr(each, name).detach() for each in singles]
        setattr(stacked, name, nn.Parameter(torch.stack(parts)))
    x = torch.randn(3, 4, 6, 5)
    h, k = torch.randn(2, 3, 4, 7).unbind()
    with torch.no_grad():
        theirs, _ = stacked(x, (h, k))
        ours = chapter["stacked_lstm"](
            x,
            torch.stack([each.weight_ih_l0.T for each in singles]),
            torch.stack([each.weight_hh_l0.T for each in singles]),
            torch.stack([(each.bias_ih_l0 + each.bias_hh_l0)[None] for each in singles]),
            h,
            k,
        )
    torch.testing.assert_close(ours, theirs)


@pytest.fixture(scope="module")
def episodes():
    """An encoder; observations, actions and rewards of five episodes; the same as one input."""
    encoder = ContextEncoder(3, 2, generator(), hidden=8)
    s = torch.randn(5, 12, 3, generator=generator(1))
    a = torch.randn(5, 11, 2, generator=generator(2))
    r = torch.randn(5, 11, generator=generator(3))
    lstm = nn.LSTM(6, 8, batch_first=True)
    lstm.load_state_dict(encoder.lstm.state_dict())
    return encoder, lstm, (s, a, r), history(s, a, r)


@torch.no_grad()
def test_kept_memories_are_those_of_acting(chapter, episodes):
    encoder, lstm, (s, a, r), x = episodes
    hidden, cell = chapter["memories_at"](lstm, x, 4)
    memory = encoder.initial_memory(5)
    previous = torch.zeros(5, 2), torch.zeros(5)
    for t in range(12):
        if t % 4 == 0:
            torch.testing.assert_close(hidden[:, t // 4], memory[0])
            torch.testing.assert_close(cell[:, t // 4], memory[1])
        _, memory = encoder.step(s[:, t], *previous, memory)
        if t < 11:
            previous = a[:, t], r[:, t]
    assert hidden[:, 1:].abs().min(dim=-1).values.max() > 0  # something is remembered


@torch.no_grad()
def test_windows_from_stored_memories_are_the_librarys_and_those_from_zero_are_not(
    chapter, episodes
):
    encoder, lstm, (s, a, r), x = episodes
    stored = chapter["memories_at"](lstm, x, 4)
    ours = encoder.head(chapter["read_windows"](lstm, x, 4, stored))
    zero = encoder.head(chapter["read_windows"](lstm, x, 4))
    whole = encoder(s, a, r)
    torch.testing.assert_close(ours, whole)
    torch.testing.assert_close(zero[:, :4], whole[:, :4])  # an episode's first window
    assert (zero[:, 4] - whole[:, 4]).abs().max() > 1e-2
    start = Start(a[:, 3], r[:, 3], (stored[0][:, 1], stored[1][:, 1]))
    library = encoder(s[:, 4:8], a[:, 4:7], r[:, 4:7], start)
    torch.testing.assert_close(ours[:, 4:8], library)


def test_the_defaults_learn_more_per_step_and_less_per_update():
    entry = provenance("curves/halfcheetah_race.parquet")
    race = load_table("curves/halfcheetah_race.parquet")
    there = race[race["episode_return"] >= entry["config"]["goal"]]
    arrivals = there.groupby(["method", "seed"]).first()
    assert len(arrivals) == len(race.groupby(["method", "seed"]))  # everybody arrived
    peer = arrivals.loc["sb3_default"].iloc[0]
    assert len(arrivals.loc["sb3_default"]) == 1  # "one run of the defaults"
    ours = arrivals.drop(index="sb3_default")
    assert (ours["env_steps"] > peer["env_steps"]).all()
    assert (ours["updates"] < peer["updates"]).all()
    assert (ours["cpu_seconds"] < peer["cpu_seconds"]).all()


def test_ant_was_still_rising_and_its_mean_action_earns_less():
    curve = load_table("curves/ant.parquet")["episode_return"].to_numpy()
    thirds = [part.mean() for part in np.array_split(curve, 3)]
    assert thirds[0] < thirds[1] < thirds[2]
    assert load_table("results/ant.parquet")["episode_return"].mean() < 4 * curve[0] < 0


def test_slimhumanoid_rose_and_then_swung():
    curve = load_table("curves/slimhumanoid.parquet")["episode_return"].to_numpy()
    half = len(curve) // 2
    assert curve[half:].min() > curve[:half].mean()
    assert (round(curve[half:].min()), round(curve[half:].max())) == (376, 1010)
