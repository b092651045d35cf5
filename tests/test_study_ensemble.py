"""Ensembles: every member is what it would have become alone."""

import copy
from functools import partial

import pytest
import torch
from problems import double_precision, make_base  # noqa: F401
from torch import nn
from torch.nn.utils import parametrizations, prune

from lookbehind import Ball, Lookbehind
from lookbehind.optim import METHODS, make_method, param_groups
from lookbehind.study import Ensemble, evaluate_members, member_cross_entropy, scale_lr
from lookbehind.study.ensemble import MemberBatches
from lookbehind.train import cosine, evaluate, fit, make_model
from lookbehind.train.data import digits

SEEDS = (0, 1, 1)
RHO, ALPHA, LR = (0.05, 0.2, 0.1), (0.2, 0.5, 1.0), (0.1, 0.02, 0.05)
SMALL = ("adam", "adamw", "rmsprop")  # their step is about as long as the learning rate


def fresh(name, seed):
    torch.manual_seed(seed)
    return make_model(name, channels=1, size=(8, 8))


def batches(seed):
    train = digits(train=50, validation=50, label_noise=0.4, seed=seed).train
    return train.batches(20, seed)  # the last has ten images


def optimizer(model, method, base, lr, **options):
    lr = lr * (0.01 if base in SMALL else 1)
    return make_method(method, make_base(base, param_groups(model), lr), k=2, **options)


ALONE = [("mlp", method, "momentum wd") for method in METHODS]
ALONE += [("mlp", method, base) for method in ("SGD", "Lookbehind-SAM") for base in SMALL]
ALONE += [("mlp", "Lookahead-SAM", "nesterov"), ("tiny-cnn", "ASAM", "momentum")]
ALONE += [("micro-resnet8", "Lookbehind-SAM", "momentum")]
ADAPTIVE = ("tiny-cnn", "Lookbehind-ASAM", "momentum")


@pytest.mark.parametrize(("name", "method", "base"), [*ALONE, ADAPTIVE])
def test_a_member_is_what_it_would_be_alone(name, method, base):
    adaptive = (name, method, base) == ADAPTIVE
    each, alpha = (["adaptive"] * 3, "adaptive") if adaptive else (ALPHA, torch.tensor(ALPHA))
    plan = {"epochs": 2, "splits": {}, "schedule": cosine}
    ensemble = Ensemble([fresh(name, seed) for seed in SEEDS])
    family = optimizer(ensemble, method, base, 0.1, rho=torch.tensor(RHO), alpha=alpha)
    scale_lr(getattr(family, "base", family), torch.tensor(LR) / 0.1)
    together = MemberBatches([batches(0), batches(1)], of=SEEDS)
    fit(ensemble, family, together, loss=member_cross_entropy, **plan)
    for e, (seed, rho, own, lr) in enumerate(zip(SEEDS, RHO, each, LR, strict=True)):
        alone, start = fresh(name, seed), fresh(name, seed).state_dict()
        fit(alone, optimizer(alone, method, base, lr, rho=rho, alpha=own), batches(seed), **plan)
        found, expected = ensemble.member(e).state_dict(), alone.state_dict()
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
        assert any((start[n] - value).abs().max() > 1e-4 for n, value in expected.items())


# Networks for images (3, 8, 8); the first two are computed on stacks, the others by `vmap`.
NETWORKS = {
    "MLP": lambda: [nn.Flatten(), nn.Linear(192, 6), nn.ReLU(), nn.Linear(6, 5)],
    "no bias": lambda: [nn.Flatten(), nn.Linear(192, 5, bias=False)],
    "other flattening": lambda: [nn.Flatten(2), nn.Linear(64, 5), nn.ReLU()],
    "other layers": lambda: [nn.Flatten(), nn.Linear(192, 5), nn.Tanh()],
    "convolution": lambda: [nn.Conv2d(3, 4, (3, 2), stride=(2, 3), padding=(1, 0))],
    "groups": lambda: [nn.Conv2d(3, 6, 3, groups=3)],
    "normalization": lambda: [nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)],
    "no statistics": lambda: [nn.BatchNorm2d(3, track_running_stats=False)],
    "group normalization": lambda: [nn.GroupNorm(3, 3)],
}


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("kind", NETWORKS)
def test_every_network_gives_the_values_and_gradients_of_the_plain_one(kind, training):
    """Twice, so that the running statistics of the first pass are in the second."""
    torch.manual_seed(0)
    nets = [nn.Sequential(*NETWORKS[kind]()).train(training) for _ in range(3)]
    ensemble, images = Ensemble(nets), torch.randn(3, 7, 3, 8, 8)
    for _ in range(2):
        together = ensemble(images)
        together.square().sum().backward()
        for e, net in enumerate(nets):
            alone = net(images[e])
            alone.square().sum().backward()
            torch.testing.assert_close(together[e], alone, rtol=0, atol=1e-12)
    for e, net in enumerate(nets):
        found = [stack.grad[e] for stack in ensemble.parameters()]
        expected = [p.grad for p in net.parameters()]
        torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-11)
        buffers = {name: stack[e] for name, stack in ensemble.named_buffers()}
        torch.testing.assert_close(buffers, dict(net.named_buffers()))


@pytest.mark.parametrize(("name", "size"), [("mlp", 20), ("tiny-cnn", 70)])
def test_scores_are_those_of_each_network_where_all_see_the_same_images(name, size):
    nets = [fresh(name, seed) for seed in SEEDS]
    ensemble, test = Ensemble(nets), digits().test.take(torch.arange(70))
    found = evaluate_members(ensemble, test.batches(size))
    expected = [evaluate(net, test.batches(70)) for net in nets]
    assert ensemble.training
    assert found.loss.tolist() == pytest.approx([score.loss for score in expected], rel=1e-7)
    assert found.accuracy.tolist() == pytest.approx([score.accuracy for score in expected])


def test_an_ensemble_has_the_names_of_one_network_and_copies_it_as_deepcopy_and_member_do():
    nets = [fresh("tiny-cnn", seed) for seed in (0, 1)]
    before = [p.clone() for p in nets[0].parameters()]
    ensemble, (images, _) = Ensemble(nets).eval(), next(iter(batches(0)))
    copied, logits = copy.deepcopy(ensemble), ensemble(images)
    assert list(ensemble.state_dict()) == list(nets[0].state_dict())
    with torch.no_grad():
        for p in ensemble.parameters():
            p.zero_()
        next(ensemble.member(0).parameters()).fill_(1)
    assert all(torch.equal(p, q) for p, q in zip(nets[0].parameters(), before, strict=True))
    assert torch.equal(copied(images), logits)
    assert not next(ensemble.parameters()).any() and not torch.equal(ensemble(images), logits)


def test_a_factor_of_one_changes_no_bit_and_zero_stands_still():
    net, (images, labels) = fresh("mlp", 0), next(iter(batches(0)))
    nets = Ensemble([net, net]), Ensemble([net, net])
    bases = [torch.optim.SGD(ensemble.parameters(), lr=0.1) for ensemble in nets]
    scale_lr(bases[0], torch.tensor([1.0, 0.0]))
    for ensemble, base in zip(nets, bases, strict=True):
        member_cross_entropy(ensemble(images), labels).sum().backward()
        base.step()
    for p, q, start in zip(*(n.parameters() for n in (*nets, net)), strict=True):
        assert torch.equal(p[0], q[0]) and torch.equal(p[1], start)


# Networks whose second layer has a weight that is made of others; the first could be stacked.
BODIES = {
    "mlp": lambda by: [nn.Flatten(), by(nn.Linear(8, 6)), nn.ReLU(), nn.Linear(6, 3)],
    "conv": lambda by: [nn.Identity(), by(nn.Conv2d(2, 3, 2)), nn.Flatten(), nn.Linear(3, 3)],
}
PRUNED = partial(prune.l1_unstructured, name="weight", amount=0.5)


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
@pytest.mark.parametrize("by", [PRUNED, torch.nn.utils.weight_norm, parametrizations.weight_norm])
@pytest.mark.parametrize("body", BODIES)
def test_pruned_and_weight_normed_members_are_what_they_are_alone(body, by):
    torch.manual_seed(0)
    models = [nn.Sequential(*BODIES[body](by)) for _ in range(3)]
    x, y = torch.randn(12, 2, 2, 2), torch.arange(12) % 3
    for model in models:
        model(x)  # leaves a tensor with a history
    ensemble, data = Ensemble(models), [(x[:6], y[:6]), (x[6:], y[6:])]
    torch.testing.assert_close(ensemble(x), torch.stack([model(x) for model in models]))

    def trained(model, rho, loss):
        base = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        fit(model, Lookbehind(base, Ball(rho), k=2), data, epochs=2, splits={}, loss=loss)

    trained(ensemble, torch.full((3,), 0.05), member_cross_entropy)
    for e, model in enumerate(models):
        trained(model, 0.05, None)
        member = ensemble.member(e)
        torch.testing.assert_close(member.state_dict(), model.state_dict())
        weight = member[1].weight.detach().clone()  # before any forward pass
        torch.testing.assert_close(member(x), model(x))
        assert torch.equal(weight, member[1].weight)


def scaled(factors):
    nets = Ensemble([fresh("mlp", seed) for seed in (0, 1)])
    scale_lr(torch.optim.SGD(nets.parameters(), lr=0.1), factors)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda: Ensemble([]), "models must hold at least one network"),
        (lambda: Ensemble([fresh("mlp", 0), fresh("tiny-cnn", 0)]), "differ in modules"),
        (lambda: Ensemble([fresh("mlp", 0), fresh("mlp", 0).eval()]), "differ in training mode"),
        (lambda: Ensemble([fresh("mlp", 0), "mlp"]), "models must be networks .* got 'mlp'"),
        (lambda: Ensemble([fresh("mlp", 0)])(torch.zeros(2, 5, 1, 8, 8)), "images must have shape"),
        (lambda: evaluate_members(Ensemble([fresh("mlp", 0)]), []), "at least one image"),
        (lambda: scaled(torch.ones(3)), "must have leading dimension 3; got"),
        (lambda: scaled(torch.tensor([1.0, -1.0])), "finite number ≥ 0"),
        (lambda: scaled(torch.ones(2, 1)), "shape"),
        (lambda: scaled([1.0, 1.0]), "must be a finite number ≥ 0, one per member"),
        (lambda: scaled(1.0), "must be a tensor of shape .E,."),
    ],
)
def test_what_is_wrong_is_said(wrong, words):
    with pytest.raises((TypeError, ValueError), match=words):
        wrong()
