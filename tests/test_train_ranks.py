"""Two processes train the network that one process trains, whatever the method.

One pair of processes runs all checks of `pair.py`; the tests compare what it found with one
process, or with two shares written down by hand.
"""

import pair
import problems
import pytest
import reference
import torch
from pair import CLIMBING, DECAY, ETA, LR, RHO, VARIANTS, K, trained
from torch.nn.functional import cross_entropy
from training import stop_after

from lookbehind.train import ALONE, Ranks, join


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("pair")


@pytest.fixture(scope="module")
def found(folder):
    """What each process found."""
    torch.set_num_threads(1)
    trained(checkpoint=folder / "by one.pt", stop=stop_after(4))
    pair.run_pair(folder)
    return [torch.load(folder / f"rank {rank}.pt") for rank in range(2)]


def assert_close(ones, others):
    for a, b in zip(ones, others, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-10)


def assert_same_run(run, other):
    assert_close(run[0], other[0])
    assert_close([run[1]], [other[1]])


@pytest.mark.parametrize("variant", VARIANTS)
def test_two_processes_end_where_one_does(variant, found):
    alone = trained(variant)
    for rank in found:
        assert_same_run(rank["check_methods"][variant], alone)


def shares(minibatch):
    """(n_r / n, gradient) of either process, by hand."""
    x, y = minibatch
    first = (len(x) + 1) // 2
    for images, labels in ((x[:first], y[:first]), (x[first:], y[first:])):

        def gradient(weights, images=images, labels=labels):
            if not len(images):
                return [torch.zeros_like(w) for w in weights]
            a, b, c, d = weights = [w.detach().requires_grad_() for w in weights]
            logits = torch.tanh(images @ a.T + b) @ c.T + d
            return torch.autograd.grad(cross_entropy(logits, labels), weights)

        yield len(images) / len(x), gradient


def local_climb(weights, minibatch, climb, k):
    """Yield the mean over both processes of the gradients at their i-th points."""
    scaled = [True, False, True, False]
    parts = list(shares(minibatch))
    slopes = [gradient(weights) for _, gradient in parts]
    points = [reference.ascended(weights, slope, climb, scaled) for slope in slopes]
    for _ in range(k):
        found = [[part * g for g in gradient(at)] for (part, gradient), at in zip(
            parts, points, strict=True)]  # fmt: skip
        slope = [a + b for a, b in zip(*found, strict=True)]
        yield slope
        points = [reference.ascended(at, slope, climb, scaled) for at in points]


def local_run(variant):
    """2 epochs with a perturbation of each process's own, from the formulas."""
    name, alpha = VARIANTS[variant]
    k = 1 if name in ("SAM", "ASAM", "Lookahead-SAM") else K
    climb = (RHO, ETA if "ASAM" in name else None)
    weights, stream = pair.weights_of(pair.network()), [*pair.minibatches(), *pair.minibatches()]
    base = reference.Base(torch.optim.SGD, [LR] * 4, momentum=0.9, weight_decay=DECAY)
    slow, turn = weights, 0
    for minibatch in stream:
        slopes = list(local_climb(weights, minibatch, climb, k))
        if "Lookbehind" not in name:
            weights, turn = base.step(weights, slopes[-1]), turn + 1
            if name == "Lookahead-SAM" and turn % K == 0:
                weights = [a + alpha * (b - a) for a, b in zip(slow, weights, strict=True)]
                slow = weights
            continue
        path = [weights]
        for slope in slopes:
            path.append(base.step(path[-1], slope))
        weights = [
            w + reference.interpolation(a - w, b - w, alpha) * (b - w)
            for w, a, b in zip(weights, path[1], path[-1], strict=True)
        ]
    return weights


@pytest.mark.parametrize("variant", CLIMBING)
def test_a_local_perturbation_is_each_processes_own_first_ascent(variant, found):
    expected = local_run(variant)
    for rank in found:
        assert_close(rank["check_local"][variant][0], expected)
    ours, theirs = (found[0][name][variant][0] for name in ("check_local", "check_methods"))
    assert max((a - b).abs().max() for a, b in zip(ours, theirs, strict=True)) > 1e-3


def test_alone_each_perturbation_is_the_same():
    assert_close(trained()[0], trained(perturbation="local")[0])


def test_a_local_perturbation_saves_one_exchange_a_step(found):
    """A step of Lookbehind-SAM, of 6."""
    assert [rank["check_counts"] for rank in found] == [{"global": 6 * (K + 1), "local": 6 * K}] * 2


def test_what_is_not_finite_in_one_process_is_raised_in_both_and_undone(found):
    assert all(all(rank["check_not_finite"]) for rank in found)


def test_one_stops_all(found):
    assert [rank["check_stop"] for rank in found] == [[(7, 1 / 3), (14, 2 / 3)]] * 2


def test_a_checkpoint_goes_on_with_another_number_of_processes(found, folder):
    whole = trained()
    for rank in found:
        assert rank["check_checkpoints"]["there"]
        assert_same_run(rank["check_checkpoints"]["resumed"], whole)
    assert_same_run(trained(checkpoint=folder / "by two.pt", resume=True), whole)


def test_all_draw_the_order_of_the_first(found):
    alone = pair.check_shuffled(ALONE, None)
    for rank in found:
        assert_same_run(rank["check_shuffled"], alone)


def test_running_statistics_are_those_of_the_first_share(found):
    expected = torch.zeros(5, dtype=torch.float64)
    for i, (x, _) in enumerate(pair.minibatches((7, 5))):
        expected = 0.9 * expected + 0.1 * x[: (len(x) + 1) // 2].mean(0)
        assert_close([found[0]["check_statistics"][0][i]], [expected])
    assert found[0]["check_statistics"][1] == found[1]["check_statistics"][1]


def test_a_network_can_be_trained_twice(found):
    alone = pair.check_twice(ALONE, None)
    for rank in found:
        for ours, weights in zip(rank["check_twice"], alone, strict=True):
            assert_close(ours, weights)


@pytest.mark.parametrize("name", problems.METHODS)
def test_sharded_parameters_end_where_whole_ones_do(name, found):
    whole = pair.sharded_run(problems.METHODS[name])
    for rank in found:
        assert_close(rank["check_sharded"][name], whole)


def test_one_process_is_no_ranks(monkeypatch):
    for name in ("WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    assert join("cuda:1") == (ALONE, "cuda:1")
    with pytest.raises(RuntimeError, match="torchrun, accelerate launch or notebook_launcher"):
        Ranks(cpu=True)
