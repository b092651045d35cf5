"""Two cheaper peers of the same idea, LookSAM and Momentum-SAM, over our climb: notebook 05.

usage: python notebooks/results/peers.py [--out FILE] [--jobs N]

Tuned and measured as the methods of tuned.py, whose docstring says what "tuning" and "runs" hold;
the budgets are the same, 200 minibatches and 600 gradients. LookSAM takes 1 + 1/k gradients a
minibatch, with k = 5 and α = 0.7, the values of its authors; Momentum-SAM takes one.
"""

from dataclasses import replace
from functools import partial
from itertools import product

import stored
import torch
from tuned import BUDGETS, COMMON, NOISES, Grid, axes_of, keep, measured, tune

from lookbehind.optim import METHODS as KNOWN
from lookbehind.optim.family import Climber
from lookbehind.optim.methods import Method
from lookbehind.weights import add_, copy_, norm, per_member


class LookSAM(Climber):
    """SAM's climb at every k-th minibatch only (Liu et al. 2022, arXiv 2203.02714, algorithm 1).

    There g_v is the part of ∇L(φ + ε) that is orthogonal to g = ∇L(φ); in between the descent goes
    along g + α ‖g‖ / ‖g_v‖ g_v.
    """

    def walk(self, step, closures, reuse):
        self.evaluate(step, closures[0], 0)
        params, g, _ = step.slope()
        size = step.met[-1].norm
        if self.taken % self.every == 0:
            g = [grad.clone() for grad in g]
            self.ascend(step)
            self.evaluate(step, closures[0], 1)
            copy_(step.params, step.slow)
            share = dot([p.grad for p in params], g, self.members) / size**2
            self.aside = [p.grad - per_member(share, p) * v for p, v in zip(params, g, strict=True)]
        else:
            long = self.alpha * size / norm(self.aside, self.members)
            add_(g, [per_member(long, v) * v for v in self.aside])
        self.base.step()
        self.taken += 1

    def __init__(self, base, ball, every=5, alpha=0.7):
        super().__init__(base, ball, k=1)
        self.every, self.alpha, self.taken, self.aside = every, alpha, 0, []


class MomentumSAM(Climber):
    """A climb against the momentum v, for free (Becker et al. 2024, arXiv 2401.12033, algorithm 1).

    v ← βv + ∇L(φ − ρ v / ‖v‖), φ ← φ − lr v
    """

    def walk(self, step, closures, reuse):
        found = [self.base.state[p].get("momentum_buffer") for p in step.params]
        if found[0] is not None:
            add_(step.params, self.ball.worst(step.params, [-v for v in found]))
        self.evaluate(step, closures[0], 1)
        copy_(step.params, step.slow)
        self.base.step()


def dot(one, other, members):
    """⟨one, other⟩ over all parameters, one value a member."""
    return sum((a * b).reshape(members or 1, -1).sum(1) for a, b in zip(one, other, strict=True))


KNOWN["LookSAM"] = Method(("rho",), LookSAM, lambda k: 2)  # at its dearest minibatch
KNOWN["Momentum-SAM"] = Method(("rho",), partial(MomentumSAM, k=1), lambda k: 1)
METHODS = {
    "LookSAM": {"method": "LookSAM", "rho": 0.2},
    "Momentum-SAM": {"method": "Momentum-SAM", "rho": 0.2},
}


def start(name, budget, noise):
    recipe = replace(COMMON, label_noise=noise, **METHODS[name])
    return replace(recipe, epochs=None, gradients=600) if "grad" in budget else recipe


def study(path, jobs):
    torch.set_default_dtype(torch.float64)
    names = list(product(METHODS, BUDGETS, NOISES))
    with stored.sweeps(path, jobs) as trained:
        grids = {point: Grid(start(*point), axes_of(METHODS[point[0]])) for point in names}
        tune(list(grids.values()), trained)
        chosen = {point: grid.at(grid.best()) for point, grid in grids.items()}
        runs = list(measured(list(chosen.values()), trained))
    keep(path, grids, chosen, runs)


if __name__ == "__main__":
    given = stored.options(__doc__, __file__).parse_args()
    study(given.out, given.jobs)
