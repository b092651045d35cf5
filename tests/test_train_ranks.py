"""Two processes train the network that one process trains, whatever the method.

One pair of processes (gloo, on loopback) runs all of `CHECKS` and leaves what each found in a file;
the tests compare it with one process, or with two shares written down by hand.
"""

import os
import socket
import subprocess
import sys
import warnings
from functools import partial
from pathlib import Path

import problems
import pytest
import reference
import torch
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.nn.functional import cross_entropy

from lookbehind.optim import METHODS, make_method, param_groups
from lookbehind.train import (
    ALONE,
    Ranks,
    constant,
    evaluate,
    fit,
    grouped,
    started_as_one_of_several,
)

K, RHO, ETA, ALPHA, LR, DECAY = 3, 0.3, 0.01, 0.5, 0.1, 0.01
VARIANTS = {name: (name, ALPHA) for name in METHODS}
VARIANTS["adaptive"] = ("Lookbehind-SAM", "adaptive")
CLIMBING = [name for name in VARIANTS if name != "SGD"]


def minibatches(sizes=(7, 7, 1), broken=False):
    """Of 7, 7 and 1 images: shares of 4 and 3, and a process that gets none."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(sum(sizes), 5, generator=generator, dtype=torch.float64)
    y = torch.randint(3, (len(x),), generator=generator)
    if broken:
        x[sizes[0] - 1] = torch.inf  # the last image of the first minibatch
    return list(zip(x.split(sizes), y.split(sizes), strict=True))


def network(seed=0, kind=nn.Tanh):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(5, 6), kind(), nn.Linear(6, 3)).double()


def optimizer_of(model, variant="Lookbehind-SAM"):
    name, alpha = VARIANTS[variant]
    groups = param_groups(model)
    base = torch.optim.SGD(groups, lr=LR, momentum=0.9, weight_decay=DECAY)
    return make_method(name, base, rho=RHO, k=K, alpha=alpha, eta=ETA)


def trained(variant="Lookbehind-SAM", ranks=ALONE, batches=None, model=None, **options):
    """The weights after 2 epochs, and the scores of all records."""
    model = network() if model is None else model
    splits = options.pop("splits", {"all": minibatches((8, 6, 1))})
    options = {"epochs": 2, "schedule": constant, "ranks": ranks, **options}
    batches, options = batches or minibatches(), grouped(**options)
    history = fit(model, optimizer_of(model, variant), batches, splits=splits, **options)
    return weights_of(model), torch.tensor([[r.loss, r.accuracy, r.epoch] for r in history.records])


def weights_of(model):
    return [p.detach().clone() for p in model.parameters()]


class Counting(Ranks):
    """Counts the gradients that the processes exchange."""

    exchanged = 0

    def network(self, model):
        def hook(_, bucket):
            self.exchanged += 1
            done = torch.distributed.all_reduce(bucket.buffer().div_(self.world), async_op=True)
            return done.get_future().then(lambda future: future.value()[0])

        network = super().network(model)
        network.register_comm_hook(None, hook)
        return network


def check_methods(ranks, folder):
    return {variant: trained(variant, ranks) for variant in VARIANTS}


def check_local(ranks, folder):
    return {variant: trained(variant, ranks, perturbation="local") for variant in CLIMBING}


def check_counts(ranks, folder):
    counting, found = Counting(), {}
    for perturbation in ("global", "local"):
        before = counting.exchanged
        trained(ranks=counting, perturbation=perturbation)
        found[perturbation] = counting.exchanged - before
    return found


def check_not_finite(ranks, folder):
    """The image that breaks the first minibatch is in the second process's share."""
    found = []
    for perturbation in ("global", "local"):
        model = network(kind=nn.ReLU)
        before = weights_of(model)
        with pytest.raises(FloatingPointError, match="loss is not finite at evaluation 1 of 4"):
            trained(ranks=ranks, batches=minibatches(broken=True), model=model,
                    perturbation=perturbation)  # fmt: skip
        found += [torch.equal(a, b) for a, b in zip(before, weights_of(model), strict=True)]
    return found


def check_stop(ranks, folder):
    """Only the second process is asked to stop, before its third step."""
    asked, seen = [], []

    def stop():
        asked.append(True)
        return ranks.rank == 1 and len(asked) == 3

    trained(ranks=ranks, stop=stop, callbacks=[lambda run: seen.append((run.images, run.epoch))])
    return seen


def check_checkpoints(ranks, folder):
    """Stopped in the second epoch; and what one process had stopped there goes on."""
    path = folder / "by two.pt"
    trained(ranks=ranks, checkpoint=path, stop=stop_after(4))
    there = path.exists()
    one = trained(ranks=ranks, checkpoint=folder / "by one.pt", resume=True)
    return {"there": there, "resumed": one}


def stop_after(steps):
    taken = iter([False] * steps)
    return lambda: next(taken, True)


def check_errors(ranks, folder):
    """What goes wrong in the first process is raised in both."""
    (folder / "no checkpoint").write_text("a text")
    for path, kind in (("no checkpoint", ValueError), ("no checkpoint/file.pt", OSError)):
        with pytest.raises(kind):
            trained(ranks=ranks, checkpoint=folder / path, resume=True)
    ensemble = [(images, labels.view(1, -1)) for images, labels in minibatches()]
    with pytest.raises(ValueError, match=r"labels must have shape \(B,\) .* got \(1, 7\)"):
        trained(ranks=ranks, splits={}, batches=ensemble)


def check_shuffled(ranks, folder):
    """A DataLoader draws its order from torch's generator, which dropout moves on, too."""
    data = torch.utils.data.TensorDataset(*map(torch.cat, zip(*minibatches(), strict=True)))
    loader = torch.utils.data.DataLoader(data, batch_size=7, shuffle=True)
    model = network(kind=partial(nn.Dropout, 0.0))
    torch.manual_seed(ranks.rank if ranks is not ALONE else 0)
    return trained("SGD", ranks, loader, model)


def check_statistics(ranks, folder):
    """BatchNorm's running mean after one step, and the score with what it has at the end."""
    model = nn.Sequential(nn.BatchNorm1d(5), network())
    found = []
    trained("SAM", ranks, minibatches((7, 5)), model.double(), epochs=1, splits={},
            callbacks=[lambda run: found.append(model[0].running_mean.clone())])  # fmt: skip
    return found, evaluate(ranks.network(model), minibatches(), ranks=ranks).loss


def check_twice(ranks, folder):
    """A network that was trained before: the first training leaves nothing behind."""
    model = network()
    return [trained("SAM", ranks, model=model)[0] for _ in range(2)]


def sharded_run(make, share=None):
    """3 steps of a network whose parameters lie on both processes, or of a whole one.

    The middle layer is larger than a batch of `neighborhood.batches`.
    """
    torch.manual_seed(0)
    sizes = (5, 97), (97, 75), (75, 3)
    model = nn.Sequential(*(nn.Sequential(nn.Linear(*s), nn.Tanh()) for s in sizes)).double()
    if share is not None:
        fully_shard(model)
    optimizer = make(torch.optim.SGD(param_groups(model), lr=LR, momentum=0.9))
    for x, y in minibatches((8, 8, 4)):
        images, labels = (x, y) if share is None else (x.chunk(2)[share], y.chunk(2)[share])

        def closure(images=images, labels=labels):
            optimizer.zero_grad()
            loss = cross_entropy(model(images), labels)
            loss.backward()
            return loss

        optimizer.step(closure)
    return [p.detach() if share is None else p.full_tensor() for p in model.parameters()]


def check_sharded(ranks, folder):
    return {name: sharded_run(make, ranks.rank) for name, make in problems.METHODS.items()}


CHECKS = {name: check for name, check in globals().items() if name.startswith("check_")}


def work(folder):
    """One of the two processes."""
    torch.set_num_threads(1)
    warnings.simplefilter("error")
    ranks = Ranks(cpu=True)
    found = {name: check(ranks, folder) for name, check in CHECKS.items()}
    torch.save(found, folder / f"rank {ranks.rank}.pt")
    ranks.leave()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start_pair(command, port):
    """Two processes that look for each other on this machine."""
    job = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2",
           "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}  # fmt: skip
    return [
        subprocess.Popen(
            command, env={**job, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for rank in range(2)
    ]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("pair")


@pytest.fixture(scope="module")
def found(folder):
    """What each process found."""
    torch.set_num_threads(1)
    trained(checkpoint=folder / "by one.pt", stop=stop_after(4))
    pair = start_pair([sys.executable, __file__, str(folder)], free_port())
    try:
        said = [process.communicate(timeout=180)[0] for process in pair]
    finally:
        for process in pair:
            process.kill()
    assert [process.returncode for process in pair] == [0, 0], "\n".join(said)
    return [torch.load(folder / f"rank {rank}.pt") for rank in range(2)]


def assert_close(ones, others):
    for a, b in zip(ones, others, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-10)


def assert_same_run(run, other):
    assert_close(run[0], other[0])
    assert_close([run[1]], [other[1]])


@pytest.mark.parametrize("variant", VARIANTS)
def test_two_processes_end_where_one_does(variant, found):
    for rank in found:
        assert_same_run(rank["check_methods"][variant], trained(variant))


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
    weights, stream = weights_of(network()), [*minibatches(), *minibatches()]
    base = reference.Base("sgd", [{"lr": LR, "momentum": 0.9, "weight_decay": DECAY}] * 4)
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
    for rank in found:
        assert_close(rank["check_local"][variant][0], local_run(variant))
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
    alone = check_shuffled(ALONE, None)
    for rank in found:
        assert_same_run(rank["check_shuffled"], alone)


def test_running_statistics_are_those_of_the_first_share(found):
    expected = torch.zeros(5, dtype=torch.float64)
    for i, (x, _) in enumerate(minibatches((7, 5))):
        expected = 0.9 * expected + 0.1 * x[: (len(x) + 1) // 2].mean(0)
        assert_close([found[0]["check_statistics"][0][i]], [expected])
    assert found[0]["check_statistics"][1] == found[1]["check_statistics"][1]


def test_a_network_can_be_trained_twice(found):
    model = network()
    for ours, *theirs in zip(
        [trained("SAM", model=model)[0] for _ in range(2)],
        *(rank["check_twice"] for rank in found),
        strict=True,
    ):
        for weights in theirs:
            assert_close(weights, ours)


@pytest.mark.parametrize("name", problems.METHODS)
def test_sharded_parameters_end_where_whole_ones_do(name, found):
    for rank in found:
        assert_close(rank["check_sharded"][name], sharded_run(problems.METHODS[name]))


def test_one_process_is_no_ranks(monkeypatch):
    for name in ("WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    assert not started_as_one_of_several()
    with pytest.raises(RuntimeError, match="torchrun, accelerate launch or notebook_launcher"):
        Ranks(cpu=True)
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert started_as_one_of_several()


def test_a_wrong_perturbation_is_refused():
    with pytest.raises(ValueError, match=r'must be "global" or "local", got .own.'):
        trained(perturbation="own")


if __name__ == "__main__":
    work(Path(sys.argv[1]))
