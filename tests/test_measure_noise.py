"""Weights with noise and with few bits: the same draws at every level, the nearest value."""

import numpy as np
import pytest
import torch
from measuring import a_network, rescaled
from torch import nn

from lookbehind.measure import Objective, quantized, weight_noise
from lookbehind.weights import weights_of


@pytest.mark.parametrize("relative", [False, True])
def test_every_level_has_the_same_draws(relative):
    model, batches = a_network()
    score = Objective(model, batches).score()
    noise = weight_noise(model, batches, [0.0, 0.1, 0.3], relative=relative, draws=3)
    assert noise.losses.shape == noise.accuracies.shape == (3, 3)
    assert noise.levels.tolist() == [0.0, 0.1, 0.3]
    assert (noise.losses[0] == score.loss).all() and (noise.accuracies[0] == score.accuracy).all()
    alone = weight_noise(model, batches, [0.3], relative=relative, draws=4)
    assert (alone.losses[0, :3] == noise.losses[2]).all()
    assert len({*alone.losses[0]}) == 4
    other = weight_noise(model, batches, [0.3], relative=relative, draws=4, seed=1)
    assert not {*alone.losses[0]} & {*other.losses[0]}
    assert noise.mean == pytest.approx([sum(row) / 3 for row in noise.accuracies])


def test_relative_noise_follows_a_rescaling_of_layers_and_absolute_noise_does_not():
    model, other, data = rescaled()
    for relative in (True, False):
        ours, theirs = (weight_noise(m, data, [0.2], relative=relative) for m in (model, other))
        assert np.allclose(ours.losses, theirs.losses, rtol=1e-12) == relative


@pytest.mark.parametrize("bits", [2, 8])
def test_quantized_weights_lie_on_the_nearest_of_evenly_spaced_values(bits):
    model, _ = a_network()
    nn.init.zeros_(model.get_submodule("fc").weight)  # which has no scale
    found, before = quantized(model, bits), weights_of(model)
    assert [*found] == [*before]
    for name, w in before.items():
        if w.ndim < 2 or not w.any():
            assert torch.equal(found[name], w)
            continue
        step = float(w.abs().max()) / (2 ** (bits - 1) - 1)
        steps = found[name] / step
        torch.testing.assert_close(steps, steps.round(), rtol=0, atol=1e-9)
        assert float((found[name] - w).abs().max()) <= step / 2 * (1 + 1e-9)
        assert float(found[name].abs().max()) == pytest.approx(float(w.abs().max()), rel=1e-12)


@pytest.mark.parametrize("seed", [0, 1])
def test_noise_has_nothing_in_common_with_the_first_weights_of_a_network_of_its_seed(seed):
    torch.manual_seed(seed)
    model = nn.Linear(64, 64, bias=False)
    first = model.weight.detach() / model.weight.detach().norm()

    def along(network, _):
        return (network.weight * first).sum()

    noise = weight_noise(
        model, [torch.zeros(1)], [0.0, 1.0], relative=False, draws=3, seed=seed, batch_loss=along
    )
    assert (abs(noise.losses[1] - noise.losses[0]) < 4).all()  # each is N(0, 1)
