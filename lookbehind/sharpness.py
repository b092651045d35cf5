"""How sharp a minimum is: measures of the loss around the weights of a network."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from lookbehind.neighborhood import AdaptiveBall, Ball, param_groups

Minibatch = tuple[Tensor, Tensor]


def worst_rise(model: nn.Module, batches: Iterable[Minibatch], ball: Ball | AdaptiveBall) -> float:
    """How far the loss rises at the worst point of a neighborhood: L(w + ε) − L(w), in nats.

        ε = argmax of ⟨∇L(w), ε⟩ over ε in `ball`

    L is the mean cross-entropy over all images of `batches` together, the network in evaluation
    mode. One ascent step along the full gradient: the sharpness that SAM bounds, to first order
    (Foret et al. 2021, arXiv 2010.01412, eqs. 1 and 2); in an `AdaptiveBall` ASAM's (Kwon et al.
    2021, arXiv 2102.11600). To higher order it may come out below 0.

    `batches` is iterated twice and must give the same images again. Weights, gradients and the
    mode of every layer are afterwards as before, also where an error is raised.

    Raises ValueError where `ball` has one radius per member or `batches` is empty.
    """
    if ball.members is not None:
        raise ValueError(f"ball must have one radius, got rho={ball.rho}")
    groups = [(p, g.get("adaptive", True)) for g in param_groups(model) for p in g["params"]]
    params, adaptive = map(list, zip(*[(p, a) for p, a in groups if p.requires_grad], strict=True))
    with _evaluating(model), _put_back(params):
        loss, grads = _loss_and_gradient(model, batches, params)
        with torch.no_grad():
            torch._foreach_add_(params, ball.worst(params, grads, adaptive))
            return _mean_loss(model, batches) - loss


def _loss_and_gradient(
    model: nn.Module, batches: Iterable[Minibatch], params: list[Tensor]
) -> tuple[float, list[Tensor]]:
    """The mean loss over all images and its gradient; `.grad` is left alone."""
    total, count = 0.0, 0
    grads = [torch.zeros_like(p) for p in params]
    with torch.enable_grad():
        for minibatch in batches:
            loss = _summed_loss(model, minibatch)
            some = torch.autograd.grad(loss, params, allow_unused=True, materialize_grads=True)
            torch._foreach_add_(grads, list(some))
            total, count = total + float(loss.detach()), count + len(minibatch[1])
    if not count:
        raise ValueError("batches must hold at least one image, got none")
    torch._foreach_div_(grads, count)
    return total / count, grads


def _mean_loss(model: nn.Module, batches: Iterable[Minibatch]) -> float:
    total, count = 0.0, 0
    for minibatch in batches:
        total += float(_summed_loss(model, minibatch))
        count += len(minibatch[1])
    return total / count


def _summed_loss(model: nn.Module, minibatch: Minibatch) -> Tensor:
    device = next(model.parameters()).device
    images, labels = (tensor.to(device) for tensor in minibatch)
    return cross_entropy(model(images), labels, reduction="sum")


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode; then every layer is put back to the mode that it had."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


@contextmanager
def _put_back(params: list[Tensor]) -> Iterator[None]:
    """Whatever happens inside, the parameters have the same bits afterwards."""
    before = [p.detach().clone() for p in params]
    try:
        yield
    finally:
        with torch.no_grad():
            torch._foreach_copy_(params, before)
