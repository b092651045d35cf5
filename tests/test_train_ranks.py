"""Two processes train the network that one process trains, whatever the method.

One pair of processes runs all checks of `pair.py`; the tests compare what it found with one
process, or with two shares written down by hand.
"""

import operator
from functools import partial

import pair
import problems
import pytest
import reference
import torch
from pair import CLIMBING, DECAY, ETA, LR, RHO, VARIANTS, K, trained
from torch.nn.functional import cross_entropy
from training import stop_after

from lookbehind.train import ALONE, Ranks, join

assert_close = partial(torch.testing.assert_close, rtol=0, atol=1e-10)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What both processes found, by the name of the check, and the folder that they left it in."""
    folder = tmp_path_factory.mktemp("pair")
    trained(checkpoint=folder / "by one.pt", stop=stop_after(4))
    pair.run_pair(folder)
    first, second = (torch.load(folder / f"rank {rank}.pt") for rank in range(2))
    return {"folder": folder} | {name: (first[name], second[name]) for name in first}


@pytest.mark.parametrize("variant", VARIANTS)
def test_two_processes_end_where_one_does(variant, found):
    alone = trained(variant)
    for ends in found["check_methods"]:
        assert_close(ends[variant], alone)


def gradient(weights, images, labels):
    a, b, c, d = weights = [w.detach().requires_grad_() for w in weights]
    logits = torch.tanh(images @ a.T + b) @ c.T + d
    return torch.autograd.grad(cross_entropy(logits, labels), weights)


def local_climb(weights, minibatch, climb, k):
    """Yield the mean over both processes of the gradients at their i-th points, by hand."""
    scaled, half = [True, False, True, False], (len(minibatch[0]) + 1) // 2
    shares = list(zip(*(tensor.split(half) for tensor in minibatch), strict=True))
    slopes = [gradient(weights, *share) for share in shares]
    points = [reference.ascended(weights, slope, climb, scaled) for slope in slopes]
    for _ in range(k):
        found = [gradient(at, *share) for at, share in zip(points, shares, strict=True)]
        parts = [len(labels) / len(minibatch[1]) for _, labels in shares]
        slope = [sum(map(operator.mul, parts, each)) for each in zip(*found, strict=True)]
        yield slope
        points = [reference.ascended(at, slope, climb, scaled) for at in points]


def local_run(variant):
    """2 epochs with a perturbation of each process's own, from the formulas."""
    name, alpha = VARIANTS[variant]
    k = 1 if name in ("SAM", "ASAM", "Lookahead-SAM") else K
    climb = (RHO, ETA if "ASAM" in name else None)
    weights = slow = pair.weights_of(pair.network())
    base = reference.Base(torch.optim.SGD, [LR] * 4, momentum=0.9, weight_decay=DECAY)
    for turn, minibatch in enumerate([*pair.minibatches(), *pair.minibatches()], 1):
        slopes, path = list(local_climb(weights, minibatch, climb, k)), []
        for slope in slopes if "Lookbehind" in name else slopes[-1:]:
            weights = base.step(weights, slope)
            path.append(weights)
        if "Lookbehind" in name or (name == "Lookahead-SAM" and turn % K == 0):
            weights = slow = [
                w + reference.interpolation(a - w, b - w, alpha) * (b - w)
                for w, a, b in zip(slow, path[0], path[-1], strict=True)
            ]
    return weights


@pytest.mark.parametrize("variant", CLIMBING)
def test_a_local_perturbation_is_each_processes_own_first_ascent(variant, found):
    expected = local_run(variant)
    for ends in found["check_local"]:
        assert_close(ends[variant][0], expected)
    assert problems.difference(expected, found["check_methods"][0][variant][0]) > 1e-3


def test_alone_each_perturbation_is_the_same():
    assert_close(trained()[0], trained(perturbation="local")[0])


def test_a_local_perturbation_saves_one_exchange_a_step(found):
    """A step of Lookbehind-SAM, of 6."""
    assert found["check_counts"] == ({"global": 6 * (K + 1), "local": 6 * K},) * 2


def test_what_is_not_finite_in_one_process_is_raised_in_both_and_undone(found):
    assert all(map(all, found["check_not_finite"]))


def test_one_stops_all(found):
    assert found["check_stop"] == ([(7, 1 / 3), (14, 2 / 3)],) * 2


def test_a_checkpoint_goes_on_with_another_number_of_processes(found):
    whole = trained()
    for ends in found["check_checkpoints"]:
        assert ends["there"]
        assert_close(ends["resumed"], whole)
    assert_close(trained(checkpoint=found["folder"] / "by two.pt", resume=True), whole)


def test_all_draw_the_order_of_the_first(found):
    assert_close(found["check_shuffled"], (pair.check_shuffled(ALONE, None),) * 2)


def test_running_statistics_are_those_of_the_first_share(found):
    (means, score), (_, other) = found["check_statistics"]
    expected = torch.zeros(5, dtype=torch.float64)
    for mean, (x, _) in zip(means, pair.minibatches((7, 5)), strict=True):
        expected = 0.9 * expected + 0.1 * x[: (len(x) + 1) // 2].mean(0)
        assert_close(mean, expected)
    assert score == other


def test_a_network_can_be_trained_twice(found):
    assert_close(found["check_twice"], (pair.check_twice(ALONE, None),) * 2)


@pytest.mark.parametrize("name", problems.METHODS)
def test_sharded_parameters_end_where_whole_ones_do(name, found):
    whole = pair.sharded_run(problems.METHODS[name])
    for ends in found["check_sharded"]:
        assert_close(ends[name], whole)


def test_one_process_is_no_ranks(monkeypatch):
    for name in ("WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    assert join("cuda:1") == (ALONE, "cuda:1")
    with pytest.raises(RuntimeError, match="torchrun, accelerate launch or notebook_launcher"):
        Ranks(cpu=True)
