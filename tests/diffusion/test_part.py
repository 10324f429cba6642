"""What is trained: random numbers, loss and weights of a diffusion part."""

from __future__ import annotations

import pytest
import torch

from hpcgen.config import DiffusionConfig, ModelConfig
from hpcgen.diffusion import OBJECTIVES, ConditionLayout, DiffusionPart
from hpcgen.diffusion.objective import GAMMA, loss_weights
from hpcgen.diffusion.part import draw_kept
from hpcgen.diffusion.schedules import Schedule

MODEL = ModelConfig(name="resmlp", width=16, resnet_blocks=1)
LAYOUT = ConditionLayout(5, (slice(0, 2), slice(2, 4)))


def part(layout: ConditionLayout | None = None, **diffusion) -> DiffusionPart:
    return DiffusionPart("joint", MODEL, DiffusionConfig(**diffusion), (7,), layout)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_what_is_drawn_follows_from_the_generator_alone():
    one, other, third = (part(LAYOUT).draw(6, generator(seed)) for seed in (1, 1, 2))
    assert {key: tuple(value.shape) for key, value in one.items()} == {"t": (6,), "eps": (6, 7), "kept": (6, 2)}
    assert all(torch.equal(one[key], other[key]) for key in one)
    assert not torch.equal(one["eps"], third["eps"])
    assert set(part().draw(6, generator())) == {"t", "eps"}


@pytest.mark.parametrize("objective", sorted(OBJECTIVES))
@pytest.mark.parametrize("weighting", ["plain", "min-snr"])
def test_loss_is_the_weighted_error_of_x0_in_the_objectives_unit(objective, weighting):
    """A network with an error d of its x0 estimate: weight x d^2 x (what a unit of x0 is in its output)."""
    it = part(objective=objective, weighting=weighting)
    drawn = it.draw(32, generator())
    x = torch.randn(32, 7, generator=generator(3))
    a, s = (v[drawn["t"]][:, None] for v in it.schedule.amplitudes())
    d = 0.01
    wrong = x + d

    def network(x_t, t):
        return OBJECTIVES[objective].target(wrong, (x_t - a * wrong) / s, a, s)

    losses = it.losses(network, {"x": x}, drawn)
    snr = (a / s).square()[:, 0]
    unit = {"noise": snr, "x0": torch.ones(32), "v": snr + 1}[objective]
    expected = snr.clamp(max=GAMMA) * d**2 if weighting == "min-snr" else unit * d**2
    torch.testing.assert_close(losses, expected, rtol=2e-2, atol=1e-9)
    assert losses.shape == (32,)


def test_min_snr_weights_are_those_of_the_paper():
    schedule = Schedule.of("cosine", 1000)
    snr = torch.exp(2 * schedule.half_log_snr)
    for t in (0, 200, 500, 900):
        expected = {
            "noise": min(snr[t], GAMMA) / snr[t],
            "v": min(snr[t], GAMMA) / (snr[t] + 1),
            "x0": min(snr[t], GAMMA),
        }
        for name, value in expected.items():
            found = loss_weights(schedule, OBJECTIVES[name], "min-snr")[t]
            assert found.item() == pytest.approx(float(value), rel=1e-5)
    assert torch.equal(loss_weights(schedule, OBJECTIVES["v"], "plain"), torch.ones(1000))
    with pytest.raises(ValueError, match="no weighting 'p2'"):
        loss_weights(schedule, OBJECTIVES["v"], "p2")


def test_a_share_of_the_rows_belongs_to_a_batch_and_not_to_a_process():
    """Halves of a global batch give the losses of the whole."""
    it = part(LAYOUT)
    torch.manual_seed(0)
    network = it.network()
    torch.nn.init.normal_(network.last.weight)
    rows = {"x": torch.randn(8, 7), "c": torch.randn(8, 5)}
    drawn = it.draw(8, generator())
    whole = it.losses(network, rows, drawn)
    for half in (slice(0, 4), slice(4, 8)):
        share = it.losses(network, *({k: v[half] for k, v in d.items()} for d in (rows, drawn)))
        torch.testing.assert_close(share, whole[half])


def test_dropped_conditions_do_not_reach_the_network():
    it = part(LAYOUT)
    seen = []

    def network(x, t, c):
        seen.append(c)
        return torch.zeros_like(x)

    drawn = it.draw(4, generator()) | {"kept": torch.tensor([[1, 1], [0, 1], [1, 0], [0, 0]], dtype=torch.bool)}
    it.losses(network, {"x": torch.randn(4, 7), "c": torch.ones(4, 5)}, drawn)
    expected = [[1, 1, 1, 1, 1], [0, 0, 1, 1, 1], [1, 1, 0, 0, 1], [0, 0, 0, 0, 1]]
    assert seen[0].tolist() == expected


@pytest.mark.parametrize("groups", [1, 3])
def test_every_number_of_conditions_is_kept_equally_often_and_none_as_asked(groups):
    kept = draw_kept(20_000, groups, 0.25, generator())
    share = torch.bincount(kept.sum(1), minlength=groups + 1) / len(kept)
    expected = torch.tensor([0.25] + [0.75 / groups] * groups)
    torch.testing.assert_close(share, expected, atol=0.015, rtol=0)
    each = kept.float().mean(0)
    torch.testing.assert_close(each, torch.full((groups,), each.mean().item()), atol=0.015, rtol=0)


def test_conditions_that_are_always_there_need_no_draw():
    it = part(ConditionLayout(3))
    drawn = it.draw(4, generator())
    assert drawn["kept"].shape == (4, 0)
    losses = it.losses(it.network(), {"x": torch.randn(4, 7), "c": torch.randn(4, 3)}, drawn)
    assert losses.isfinite().all()


def test_levels_say_how_much_of_the_forward_process_is_done():
    it = part(steps=10)
    assert it.levels({"t": torch.tensor([0, 4, 9])}).tolist() == pytest.approx([0.1, 0.5, 1.0])


def test_training_learns_a_distribution():
    """One part through loss, optimiser and solver: two points, far apart."""
    from hpcgen.diffusion.samplers import denoiser, dpm_solver

    it = DiffusionPart("joint", ModelConfig(name="resmlp", width=32, resnet_blocks=1), DiffusionConfig(), (2,))
    torch.manual_seed(0)
    network = it.network()
    optimiser = torch.optim.Adam(network.parameters(), 1e-2)
    points = torch.tensor([[1.0, -1.0], [-1.0, 0.5]])
    numbers = generator()
    for _ in range(200):
        rows = {"x": points[torch.randint(2, (64,), generator=numbers)]}
        loss = it.losses(network, rows, it.draw(64, numbers)).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    noise = torch.randn(200, 2, generator=numbers)
    x = dpm_solver(denoiser(network.eval(), it.schedule, it.objective), noise, it.schedule, 20)
    distance = torch.cdist(x, points)
    assert distance.min(1).values.median() < 0.3
    share = (distance.argmin(1) == 0).float().mean()
    assert 0.3 < share < 0.7
