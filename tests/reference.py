"""The family written down naively in float64, as an oracle: 2k gradients, nothing reused.

Weights are lists of plain tensors, gradients come from `autograd.grad`, and the base optimizers are
spelled out from their papers. Nothing here is shared with `lookbehind`, nor with `torch.optim`.
`gradient(weights) -> (loss, gradients)`. An ascent's radius and scaling are given as
`climb = (rho, eta)`, with `eta` None for SAM; `scaled[j]` says where ASAM has T = |w| + η.
"""

import torch


def total(tensors):
    return torch.sqrt(sum((t * t).sum() for t in tensors))


def ascended(weights, gradients, climb, scaled):
    """w + ρ T² g / ‖T g‖₂."""
    rho, eta = climb
    stretch = [
        w.abs() + eta if eta is not None and s else torch.ones_like(w)
        for w, s in zip(weights, scaled, strict=True)
    ]
    length = total([t * g for t, g in zip(stretch, gradients, strict=True)])
    if length == 0:
        return list(weights)
    return [
        w + rho * t * t * g / length for w, t, g in zip(weights, stretch, gradients, strict=True)
    ]


class Base:
    """One of torch's optimizers on a list of weights; `options[j]` are those of weight j."""

    def __init__(self, name, options):
        self.update = {"sgd": sgd, "adam": adam, "adamw": adamw, "rmsprop": rmsprop}[name]
        self.options = options
        self.state = [{} for _ in options]

    def step(self, weights, gradients):
        """The weights after one step; the state moves on."""
        return [
            self.update(w, g, state, **options)
            for w, g, state, options in zip(
                weights, gradients, self.state, self.options, strict=True
            )
        ]


def sgd(w, g, state, lr, momentum=0.0, nesterov=False, weight_decay=0.0):
    g = g + weight_decay * w
    if momentum:
        state["m"] = momentum * state["m"] + g if "m" in state else g
        g = g + momentum * state["m"] if nesterov else state["m"]
    return w - lr * g


def adam(w, g, state, lr, weight_decay=0.0, b1=0.9, b2=0.999, eps=1e-8):
    g = g + weight_decay * w
    t = state["t"] = state.get("t", 0) + 1
    state["m"] = b1 * state.get("m", 0) + (1 - b1) * g
    state["v"] = b2 * state.get("v", 0) + (1 - b2) * g * g
    mean, square = state["m"] / (1 - b1**t), state["v"] / (1 - b2**t)
    return w - lr * mean / (torch.sqrt(square) + eps)


def adamw(w, g, state, lr, weight_decay=0.01):
    return adam(w - lr * weight_decay * w, g, state, lr)


def rmsprop(w, g, state, lr, weight_decay=0.0, alpha=0.99, eps=1e-8):
    g = g + weight_decay * w
    state["v"] = alpha * state.get("v", 0) + (1 - alpha) * g * g
    return w - lr * g / (torch.sqrt(state["v"]) + eps)


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
    """α, or where it is "adaptive" (1 + cos ∠(first, total)) / 2."""
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
