"""The complete control of Lookbehind-SAM: what SAM does with its radius, its step and its memory.

usage: python notebooks/results/control.py [--out FILE] [--jobs N]

The match. A step of Lookbehind-SAM takes k inner steps of SGD with momentum β, and keeps a share α
of the way. Let the k gradients of a minibatch be nearly one, g (on a straight climb their mean is
the gradient at ρ(k + 1)/2, to first order in ρ). Then

    v ← βv + g, k times:   v_k = β^k v + g (1 + β + … + β^{k−1}) = β^k v + (1 − β^k)/(1 − β) g
    φ_k − φ = −lr Σ_i v_i,   and of the buffer v the next minibatch finds β^k v

In the long run a gradient moves φ by αk lr / (1 − β) in all: k times 1/(1 − β) an inner step, α of
it kept, and its effect decays by β^k a minibatch. SAM with momentum β' = β^k moves φ by
lr' / (1 − β^k) in all, so lr' = αk lr (1 − β^k) / (1 − β), with radius ρ' = ρ(k + 1)/2.

Controlled are the winners of tuned.py and of each k of steps.py, each beside SAM at the effective
radius and step αk lr with the old momentum, SAM matched in full, and mean-Multistep-SAM at the
winner's ρ with the same two. All take as many steps as the winner, from ten seeds that nothing was
chosen by. "runs" are as those of tuned.py; "of" names the winner.
"""

import json
from dataclasses import asdict, replace
from pathlib import Path

import stored
import torch
from tuned import COMMON, NOISE, RADIUS, SEEDS, SIGMA, measured, settings_of

HERE = Path(__file__).parent
WINNERS = ("Lookbehind-SAM k 2", "Lookbehind-SAM k 5")


def matched(recipe):
    """(name, recipe) of the controls of a Lookbehind-SAM with a number α."""
    k, beta = recipe.k, recipe.momentum
    step = recipe.alpha * k * recipe.lr
    memory = {"momentum": beta**k, "lr": step * (1 - beta**k) / (1 - beta)}
    sam = replace(recipe, method="SAM", rho=recipe.rho * (k + 1) / 2)
    mean = replace(recipe, method="Multistep-SAM", gradient="mean")
    return {
        "SAM, old momentum": replace(sam, lr=step),
        "SAM, matched": replace(sam, **memory),
        "mean-Multistep, old momentum": replace(mean, lr=step),
        "mean-Multistep, matched": replace(mean, **memory),
    }


def winners():
    """(where from, recipe): without a seed."""
    for row in json.loads((HERE / "tuned.json").read_text(encoding="utf-8"))["runs"]:
        if row["name"] in WINNERS:
            yield f"{row['name']}, {row['budget']}", replace(COMMON, **row["settings"])
    for row in json.loads((HERE / "steps.json").read_text(encoding="utf-8"))["winners"]:
        yield f"steps, k {row['k']}", replace(COMMON, **row["settings"])


def study(path, jobs):
    torch.set_default_dtype(torch.float64)
    found = {}
    for of, recipe in winners():
        controls = matched(recipe) if recipe.k > 1 else {}  # k = 1 is SAM
        for name, control in {recipe.method: recipe, **controls}.items():
            found[of, recipe.label_noise, name] = control
    with stored.sweeps(path, jobs) as trained:
        runs = list(measured(list(found.values()), trained))
    rows = [
        {"of": of, "label_noise": noise, "name": name, "settings": settings_of(recipe), **run}
        for ((of, noise, name), recipe), run in zip(found.items(), runs, strict=True)
    ]
    head = {"common": asdict(COMMON), "seeds": SEEDS}
    head |= {"radius": RADIUS, "sigma": SIGMA, "noise": NOISE}
    stored.write(path, head, rows, stored.CPU)


if __name__ == "__main__":
    given = stored.options(__doc__, __file__).parse_args()
    study(given.out, given.jobs)
