"""Two processes (gloo, on loopback) that train together, and all that is checked in them."""

import warnings
from functools import partial

import forks
import problems
import pytest
import torch
from torch import nn
from torch.distributed.fsdp import fully_shard
from training import stop_after

from lookbehind.optim import METHODS, make_method, param_groups
from lookbehind.train import ALONE, Ranks, constant, evaluate, fit, grouped

K, RHO, ETA, ALPHA, LR, DECAY = 3, 0.3, 0.01, 0.5, 0.1, 0.01
VARIANTS = {name: (name, ALPHA) for name in METHODS}
VARIANTS["adaptive"] = ("Lookbehind-SAM", "adaptive")
CLIMBING = [name for name in VARIANTS if name != "SGD"]


def minibatches(sizes=(7, 7, 1)):
    """Of 7, 7 and 1 images: shares of 4 and 3, and a process that gets none."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(sum(sizes), 5, generator=generator, dtype=torch.float64)
    y = torch.randint(3, (len(x),), generator=generator)
    return list(zip(x.split(sizes), y.split(sizes), strict=True))


def network(kind=nn.Tanh):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 6), kind(), nn.Linear(6, 3)).double()


def trained(variant="Lookbehind-SAM", ranks=ALONE, batches=None, model=None, **options):
    """The weights after 2 epochs, and the scores of all records."""
    model, (name, alpha) = network() if model is None else model, VARIANTS[variant]
    base = torch.optim.SGD(param_groups(model), lr=LR, momentum=0.9, weight_decay=DECAY)
    optimizer = make_method(name, base, rho=RHO, k=K, alpha=alpha, eta=ETA)
    usual = {"epochs": 2, "schedule": constant, "splits": {"all": minibatches((8, 6, 1))}}
    options = grouped(ranks=ranks, **usual | options)
    history = fit(model, optimizer, batches or minibatches(), **options)
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
    found = {"global": Counting(), "local": Counting()}
    for perturbation, counting in found.items():
        trained(ranks=counting, perturbation=perturbation)
    return {perturbation: counting.exchanged for perturbation, counting in found.items()}


def check_not_finite(ranks, folder):
    """The image that breaks the first minibatch is in the second process's share."""
    batches, found = minibatches(), []
    batches[0][0][-1] = torch.inf
    for perturbation in ("global", "local"):
        model = network(kind=nn.ReLU)
        before = weights_of(model)
        with pytest.raises(FloatingPointError, match="loss is not finite at evaluation 1 "):
            trained(ranks=ranks, batches=batches, model=model, perturbation=perturbation)
        found += [torch.equal(a, b) for a, b in zip(before, weights_of(model), strict=True)]
    return found


def check_stop(ranks, folder):
    """Only the second process is asked to stop, before its third step."""
    seen, stop = [], stop_after(2) if ranks.rank == 1 else lambda: False
    trained(ranks=ranks, stop=stop, callbacks=[lambda run: seen.append((run.images, run.epoch))])
    return seen


def check_checkpoints(ranks, folder):
    """Stopped in the second epoch; and what one process had stopped there goes on."""
    path = folder / "by two.pt"
    trained(ranks=ranks, checkpoint=path, stop=stop_after(4))
    resumed = trained(ranks=ranks, checkpoint=folder / "by one.pt", resume=True)
    return {"there": path.exists(), "resumed": resumed}


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
    model, found = nn.Sequential(nn.BatchNorm1d(5), network()).double(), []
    trained("SAM", ranks, minibatches((7, 5)), model, epochs=1, splits={},
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
    batches = minibatches((8, 8, 4))
    if share is not None:
        fully_shard(model)
        batches = [[both.chunk(2)[share] for both in minibatch] for minibatch in batches]
    problem = problems.Problem(model, batches)
    optimizer = make(torch.optim.SGD(param_groups(model), lr=LR, momentum=0.9))
    for i in range(3):
        optimizer.step(problem.closure(i))
    return [p.detach() if share is None else p.full_tensor() for p in problem.params]


def check_sharded(ranks, folder):
    return {name: sharded_run(make, ranks.rank) for name, make in problems.METHODS.items()}


CHECKS = {name: check for name, check in globals().items() if name.startswith("check_")}


def check(folder):
    """One of two processes does all of `CHECKS`, and leaves what it found in a file."""
    warnings.simplefilter("error")
    ranks = Ranks(cpu=True)
    found = {name: check(ranks, folder) for name, check in CHECKS.items()}
    torch.save(found, folder / f"rank {ranks.rank}.pt")
    ranks.leave()


def run_pair(folder):
    """Both processes, which look for each other here, do all checks; neither may fail."""
    job = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(forks.free_port())}
    job |= {"WORLD_SIZE": "2", "GLOO_SOCKET_IFNAME": "lo"}
    said = {rank: folder / f"said by {rank}" for rank in "01"}
    processes = [
        forks.start(check, folder, said=file, **job, RANK=rank, LOCAL_RANK=rank)
        for rank, file in said.items()
    ]
    for process in processes:
        process.join(180)
        process.kill()
    words = "\n".join(file.read_text(encoding="utf-8") for file in said.values())
    assert [process.exitcode for process in processes] == [0, 0], words
