"""Does the gradient after more ascents point better at the maximum nearby? Notebooks 02 and 06.

usage: python notebooks/results/ascents.py [--out FILE] [--jobs N]

Chen & Zhou (arXiv 2603.10048) say that after one ascent it points there better than ∇L(φ) does, and
that after several it may point there worse. `angles` measures it. "toys" holds, of each 2D loss and
radius, the quartiles over 50 points of its window for i = 0 … 10, and "runs" the angles of
networks that three methods train on digits, of each seed: at the start of training, after a tenth
of it and at its end. About two minutes on two CPU cores.
"""

import math
from dataclasses import asdict, replace

import numpy as np
import stored
import torch
from torch.func import functional_call, grad
from torch.nn.functional import cross_entropy

from lookbehind.study import networks
from lookbehind.toy import LOSSES
from lookbehind.train import Recipe

ASCENTS, SEEDS = 10, (5, 6, 7, 8, 9)
COMMON = Recipe(label_noise=0.4, gradients=None, epochs=20, lr=0.1)
METHODS = {
    "SGD": {"method": "SGD"},
    "SAM": {"method": "SAM", "rho": 0.28},
    "Lookbehind-SAM k 5": {"method": "Lookbehind-SAM", "k": 5, "alpha": 0.2, "rho": 0.1},
}
TOYS = ("valley", "ring", "two basins", "quadratic", "Rosenbrock", "Himmelblau")
RADII = {"toys": (0.1, 0.3), "runs": (0.05, 0.28)}


def angles(loss, w, rho, ascents=ASCENTS):
    """Degrees between ∇L(φ'_i) and the direction d of the maximum, for i = 0 … `ascents`.

    φ'_i is what i ascents of length ρ / i reach from φ = `w` (n,). d maximizes L(φ + ρ d), a unit
    vector in the plane that ∇L(φ) spans with the climb in `ascents` ascents; where that is
    straight, with the gradient at its end.
    """
    slope = grad(loss)

    def climb(steps):
        point = w
        for _ in range(steps):
            g = slope(point)
            point = point + rho / steps * g / g.norm()
        return point

    ends = [climb(i) for i in range(ascents + 1)]
    gradients = torch.stack([slope(end) for end in ends])
    u = gradients[0] / gradients[0].norm()
    asides = [d - (d @ u) * u for d in (ends[-1] - w, gradients[-1])]
    v = next((d for d in asides if d.norm() > 1e-6 * rho), asides[0])
    v = v / v.norm().clamp_min(1e-12)
    turns = torch.linspace(0, 2 * math.pi, 361, dtype=w.dtype)[:-1]
    circle = torch.outer(turns.cos(), u) + torch.outer(turns.sin(), v)
    top = circle[torch.vmap(loss, chunk_size=48)(w + rho * circle).argmax()]
    cosines = gradients @ top / gradients.norm(dim=1)
    return torch.rad2deg(cosines.clamp(-1, 1).acos()).tolist()


def of_toys():
    generator = torch.Generator().manual_seed(1)
    for name in TOYS:
        toy = LOSSES[name]
        low_x, high_x, low_y, high_y = toy.window
        low, size = torch.tensor([low_x, low_y]), torch.tensor([high_x - low_x, high_y - low_y])
        points = low + size * torch.rand(50, 2, generator=generator, dtype=torch.float64)
        for rho in RADII["toys"]:
            found = np.array([angles(toy, point, rho) for point in points])
            quartiles = np.nanquantile(found, (0.25, 0.5, 0.75), axis=0)
            yield {"loss": name, "rho": rho, "quartiles": np.round(quartiles, 1).tolist()}


def of_network(network, dataset, rho):
    """The angles of the loss on all training images, by the labels that were given."""
    [(images, labels)] = dataset.train.batches(len(dataset.train))
    shapes = {name: p.shape for name, p in network.named_parameters()}
    w = torch.cat([p.detach().flatten() for p in network.parameters()])

    def loss(flat):
        parts = flat.split([shape.numel() for shape in shapes.values()])
        named = {n: p.view(s) for (n, s), p in zip(shapes.items(), parts, strict=True)}
        return cross_entropy(functional_call(network, named, (images,)), labels)

    return [round(a, 1) for a in angles(loss, w, rho)]


def of_runs():
    """At the start, early and at the end: early is a run of a tenth of the steps, lr constant."""
    for name, settings in METHODS.items():
        for when in ("start", "early", "end"):
            changes = {"epochs": 2, "schedule": "constant"} if when == "early" else {}
            recipes = [replace(COMMON, seed=s, **settings, **changes) for s in SEEDS]
            for recipe, (network, _) in zip(recipes, networks(recipes), strict=True):
                dataset = recipe.load()
                model = recipe.make_model(dataset) if when == "start" else network
                for rho in RADII["runs"]:
                    found = of_network(model, dataset, rho)
                    yield {"name": name, "when": when, "seed": recipe.seed, "rho": rho,
                           "angles": found}  # fmt: skip


def study(path):
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)
    head = {"common": asdict(COMMON), "seeds": SEEDS, "methods": METHODS, "radii": RADII}
    stored.write(path, head, list(of_runs()), stored.CPU, toys=list(of_toys()))


if __name__ == "__main__":
    study(stored.options(__doc__, __file__).parse_args().out)
