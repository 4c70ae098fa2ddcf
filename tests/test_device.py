"""The networks on another device than the processor.

Few computers that run these tests have a graphics card. So the update is also run on PyTorch's
"meta" device, where tensors have shapes and no numbers. Like a card it refuses operations between
devices, and it fails at once where a card would only wait: at ``.item()`` and its like.
"""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sami_tutorial.agents import get_method
from sami_tutorial.context_sac import ContextConfig
from sami_tutorial.device import move, usable
from sami_tutorial.encoder import Start
from sami_tutorial.nets import normal
from sami_tutorial.population import stack, stack_agents
from sami_tutorial.replay import Episodes
from sami_tutorial.sac import SACConfig, Transitions
from sami_tutorial.sampling import ContrastiveBatch
from sami_tutorial.train import Run, population_update, recipe

METHODS = ("sac", "tesac", "ccm", "satesac", "saccm")
META = torch.device("meta")
S, A, H, E, T = 5, 2, 8, 4, 6


def agent_on_meta(method, seed, settings):
    """What ``agent.to(device)`` does for a card: the parameters move, the optimisers know them."""
    agent = get_method(method).make_agent(S, A, SACConfig(hidden=(8, 8)), settings, seed)
    new = {}
    for module in agent.modules():
        for name, parameter in module._parameters.items():
            moved = nn.Parameter(parameter.detach().to(META), parameter.requires_grad)
            new[id(parameter)] = module._parameters[name] = moved
        for name, buffer in module._buffers.items():
            module._buffers[name] = buffer.to(META)
    for optimizer in agent.optimizers.values():
        optimizer.defaults["fused"] = False  # there is no fused Adam on "meta"
        for group in optimizer.param_groups:
            group["fused"] = False
            group["params"] = [new[id(parameter)] for parameter in group["params"]]
    return agent


def windows(count):
    memory = torch.zeros(count, H), torch.zeros(count, H)
    steps = torch.zeros(count, T)
    return Episodes(
        observation=torch.zeros(count, T + 1, S),
        action=torch.zeros(count, T, A),
        reward=steps,
        terminated=steps,
        mask=steps.bool(),
        context=torch.zeros(count, 1),
        start=Start(torch.zeros(count, A), torch.zeros(count), memory),
    )


def batch(method):
    """As ``Run.batch`` makes it."""
    if get_method(method).encoder is None:
        steps, observation = torch.zeros(E), torch.zeros(E, S)
        made = Transitions(observation, torch.zeros(E, A), steps, observation, steps), 0.0
    else:
        contrast = ContrastiveBatch(windows(3), windows(3), windows(3), torch.zeros(()))
        made = windows(E), E * T, contrast if get_method(method).contrast else None, 0.0
    return move(made, META)


@pytest.mark.parametrize("own_step", [0.0, 1e-3])
@pytest.mark.parametrize("method", METHODS)
def test_an_update_stays_on_its_device_and_never_waits(method, own_step):
    settings = ContextConfig(
        episodes=E, window=T, hidden=H, contrast_rate=own_step, contrast_start="zero"
    )
    agent = agent_on_meta(method, 0, settings)
    metrics = agent.update(*batch(method))
    assert {value.device for value in metrics.values()} == {META}
    assert {parameter.device for parameter in agent.parameters()} == {META}

    members = [agent_on_meta(method, seed, settings) for seed in (0, 1)]
    together = stack_agents(members, agent_on_meta(method, 0, settings))
    metrics = together.update(*stack([batch(method) for _ in members]))
    assert {(value.device, *value.shape) for value in metrics.values()} == {(META, 2)}


def test_a_card_would_see_the_same_random_numbers(monkeypatch):
    """They are drawn on the processor, whatever the device, and moved."""
    drawn = []
    to = torch.Tensor.to

    def spy(tensor, *arguments):
        drawn.append((tensor.device.type, tensor.clone()))
        return to(tensor, *arguments)

    monkeypatch.setattr(torch.Tensor, "to", spy)
    here = normal(torch.Generator().manual_seed(0), torch.zeros(3, 2))
    there = normal(torch.Generator().manual_seed(0), torch.zeros(3, 2, device=META))
    assert there.device == META
    (_, first), (kind, second) = drawn
    assert kind == "cpu"
    assert torch.equal(first, here) and torch.equal(second, here)


def test_move_finds_the_tensors_of_a_batch():
    x = torch.zeros(2)
    episodes = Episodes(x, x, x, x, x, x, start=None, shown=x)
    moved = move((episodes, 3, None, 0.5), META)
    assert isinstance(moved[0], Episodes)
    assert {each.device for each in moved[0] if each is not None} == {META}
    assert moved[0].start is None
    assert moved[1:] == (3, None, 0.5)


@pytest.mark.parametrize("name", ["nonsense", "cuda:99", "meta"])
def test_a_device_that_is_not_there(name):
    with pytest.raises(ValueError, match=rf"device is '{name}', .* give 'cpu'"):
        usable(name)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no graphics card")
@pytest.mark.parametrize("method", METHODS)
def test_a_graphics_card_trains_as_the_processor_does(method):
    config = recipe("sami/CrippledHopper-v0", method, num_envs=4, steps=16_000, warmup_steps=4_000)
    states = []
    for device in ("cpu", "cuda"):
        run = Run(config, device)
        while next(run.turns()) is not None:
            pass  # the warm-up
        update = population_update([run])
        for _ in range(5):
            update()
            run.updates += 1
        run.env.close()
        states.append({name: x.cpu() for name, x in run.agent.state_dict().items()})
    torch.testing.assert_close(*states, rtol=1e-3, atol=1e-4)
