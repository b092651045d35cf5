"""The family written down naively in float64, as an oracle: 2k gradients, nothing reused.

Weights are lists of plain tensors, gradients come from `autograd.grad`; nothing here is shared with
`lookbehind`. `gradient(weights) -> (loss, gradients)`. An ascent's radius and scaling are given as
`climb = (rho, eta)`, with `eta` None for SAM; `scaled[j]` says where ASAM has T = |w| + η.
"""

import torch


def ascended(weights, gradients, climb, scaled):
    """w + ρ T² g / ‖T g‖₂."""
    rho, eta = climb
    pairs = zip(weights, scaled, strict=True)
    stretch = [w.abs() + eta if s and eta is not None else torch.ones_like(w) for w, s in pairs]
    triples = list(zip(weights, stretch, gradients, strict=True))
    length = torch.sqrt(sum((t * g).square().sum() for _, t, g in triples))
    if length == 0:
        return list(weights)
    return [w + rho * t * t * g / length for w, t, g in triples]


class Base:
    """A `torch.optim` optimizer as a function of weights; it knows of no step around its own."""

    def __init__(self, make, lrs, **options):
        self.params = [torch.nn.Parameter(torch.empty(0, dtype=torch.float64)) for _ in lrs]
        groups = [{"params": [p], "lr": lr} for p, lr in zip(self.params, lrs, strict=True)]
        self.optimizer = make(groups, **options)

    def step(self, weights, gradients):
        """The weights after one step; the state moves on."""
        for p, w, g in zip(self.params, weights, gradients, strict=True):
            p.data, p.grad = w.clone(), g.clone()
        self.optimizer.step()
        return [p.detach().clone() for p in self.params]


def multistep(weights, gradients, base, climb, scaled, mean=False):
    """Multistep-SAM/ASAM: φ ← A(φ, ∇L(φ'_k)), or the mean over i of ∇L(φ'_i). SAM is k = 1."""
    point, found = weights, []
    for gradient in gradients:
        point = ascended(point, gradient(point)[1], climb, scaled)
        found.append(gradient(point)[1])
    used = [sum(gs) / len(gs) for gs in zip(*found, strict=True)] if mean else found[-1]
    return base.step(weights, used)


def lookbehind(weights, gradients, base, climb, scaled, alpha):
    """Lookbehind-SAM/ASAM: `gradients` has one function per inner step, k in all."""
    point = fast = weights
    path = []
    for gradient in gradients:
        point = ascended(point, gradient(point)[1], climb, scaled)
        fast = base.step(fast, gradient(point)[1])
        path.append(fast)
    return [
        w + interpolation(a - w, b - w, alpha) * (b - w)
        for w, a, b in zip(weights, path[0], path[-1], strict=True)
    ]


def interpolation(first, total, alpha):
    """α, what it says as a function, or where it is "adaptive" (1 + cos ∠(first, total)) / 2."""
    if callable(alpha):
        return alpha(first, total)
    if alpha != "adaptive":
        return alpha
    lengths = first.norm() * total.norm()
    cosine = (first * total).sum() / lengths if lengths > 0 else torch.tensor(0.0)
    return (1 + cosine.clamp(-1, 1)) / 2


def lookahead(weights, gradients, base, climb, scaled, alpha):
    """Lookahead over SAM, or over `base` alone where `climb` is None: a minibatch an inner step."""
    fast = weights
    for gradient in gradients:
        if climb is None:
            fast = base.step(fast, gradient(fast)[1])
        else:
            fast = multistep(fast, [gradient], base, climb, scaled)
    return [w + alpha * (b - w) for w, b in zip(weights, fast, strict=True)]
