"""The maps, the atlas, shared steps, shifted losses: what they say, and their pages in Chromium."""

import json
from pathlib import Path

import lab
import numpy as np
import pytest
import torch
from lab import type_in
from traitlets import TraitError

from lookbehind.explore import maps
from lookbehind.study import lifelong

RESULTS = Path(__file__).parents[1] / "notebooks" / "results"
AXES = {"k": [1, 2], "α": [0.2, "adaptive", 0.8], "ρ": [0.1, 0.2, 0.3, 0.4]}
VALUES = np.random.default_rng(0).uniform(20, 90, size=(2, 3, 4, 5))
MAPPED = np.stack([VALUES.mean(3), VALUES.std(3, ddof=1)], -1)
MAPS = {"accuracy (%)": MAPPED, "sharpness": 2 * MAPPED}
LEVELS = {"relative": [0.0, 0.5, 1.0], "bits": [2, 3, 4, 5]}
SHARES = {"SGD": VALUES[0, ..., 0] / 100, "SAM, wider": VALUES[0, ..., 1] / 100}
TABLES = {"relative": {name: some[:, :3] for name, some in SHARES.items()}, "bits": SHARES}
NUMBERS = np.random.default_rng(1).random((3, 5, 4, 4))
LESSONS = [
    {"name": name, "sequence": of, "memory": memory, "accuracy": R.tolist()}
    for of, tasks in (("split", 4), ("permuted", 3))
    for i, memory in enumerate((0, 50))
    for name, R in zip(("SGD", "SAM"), NUMBERS[i : i + 2, ..., :tasks, :tasks], strict=True)
]
opened = lab.opened
PAGES = {
    "heat maps": lambda: maps.HeatMaps(MAPS, AXES, seeds=5),
    "intervals": lambda: maps.Intervals(TABLES, LEVELS, other="SGD", at=1),
    "shared step": maps.SharedStep,
    "shift": lambda: maps.ShiftedLoss(shift=0.2),
    "tasks": lambda: maps.TaskMatrices(LESSONS),
    "atlas": lambda: maps.TrainingAtlas(RESULTS / "atlas.json"),
    "trade-off": lambda: maps.TradeOff(RESULTS / "lines.json"),
}


def test_a_map_shows_the_mean_over_the_seeds_and_the_span_turns_it():
    explorer = PAGES["heat maps"]()
    explorer.at = 3
    for shown, factor in zip(explorer.shown(), (1, 2), strict=True):
        np.testing.assert_allclose(shown, factor * VALUES[:, :, 3].mean(2), rtol=1e-3)
    explorer.span, explorer.at = ["ρ", "k"], 1
    np.testing.assert_allclose(explorer.shown()[0], VALUES[:, 1].mean(2).T, rtol=1e-3)


def test_what_does_not_fit_is_named():
    for array in (VALUES, VALUES.mean(3)):
        with pytest.raises(ValueError, match=r"shape \(2, 3, 4, 2\) for .*; got .* for 'acc'"):
            maps.HeatMaps({"acc": array}, AXES, seeds=5)
    for levels, other in (({**LEVELS, "bits": [2]}, "SGD"), (LEVELS, "Adam")):
        with pytest.raises(ValueError, match=r"tables must hold \(seeds, .*got"):
            maps.Intervals(TABLES, levels, other=other)
    for rows in (LESSONS[:2] + LESSONS[4:], [{**LESSONS[0], "accuracy": [[0.5]]}], []):
        said = r"rows must hold (\(seeds, T, T\) for \('split', |a row at least, got none)"
        with pytest.raises(ValueError, match=said):
            maps.TaskMatrices(rows)
    with pytest.raises(TraitError, match=r"'sharpness' trait .* any of \[1, 2, .*not the int 3"):
        maps.ShiftedLoss(sharpness=3)
    for wrong in ({"k": 4}, {"eta": 0.1}):
        with pytest.raises(ValueError, match=r"setting must .*, got (k=4|eta=0.1)"):
            maps.TrainingAtlas(RESULTS / "atlas.json", **wrong)
    for wrong in ({"ranks": 9}, {"climb": "own"}):
        with pytest.raises(TraitError, match=r"'(ranks|climb)' trait .* (9|any of .*'own')"):
            maps.SharedStep(**wrong)


LISTENED = """() => {
    const says = document.querySelector('figcaption'), listen = () => said.push(says.textContent);
    window.said = [];
    const options = {subtree: true, childList: true, characterData: true};
    new MutationObserver(listen).observe(says, options);
}"""


def redrawn(page, act):
    return all(lab.changed(page, act, "canvas"))


def words(page):
    lab.rest(page, 40)
    return page.locator("figcaption").text_content()


def choose(page, menu, label):
    page.get_by_label(menu, exact=True).select_option(label=label)


def told(shares):
    """Mean and standard deviation of shares, in %."""
    return f"{100 * np.mean(shares):.1f} % ± {100 * np.std(shares, ddof=1):.1f}"


@pytest.mark.browser
def test_a_cell_tells_its_mean_and_spread_and_the_best_is_marked(opened):
    page = opened(PAGES["heat maps"]())
    row, column = np.unravel_index(VALUES[:, :, 2].mean(2).argmax(), (2, 3))
    best, some = f"k = {AXES['k'][row]}, α = {AXES['α'][column]}", VALUES[row, column, 2]
    assert words(page).startswith(f"{best}: accuracy {told(some / 100)}; sharpness")
    assert f"★ best accuracy of this map: {best}, {some.mean():.1f} %." in words(page)
    cells = page.get_by_role("slider", name="a cell of the maps")
    assert redrawn(page, lambda: cells.press("ArrowRight" if column < 2 else "ArrowLeft"))
    assert best not in cells.get_attribute("aria-valuetext")
    choose(page, "map of", "ρ")  # for k, held from now on
    assert words(page).startswith("ρ = ")
    assert type_in(page, "k", 1).get_attribute("aria-valuetext") == "1"
    choose(page, "×", "ρ")  # the two change places
    page.locator("canvas").hover(position={"x": 100, "y": 40})
    assert words(page).startswith(f"α = 0.2, ρ = 0.1: accuracy {told(VALUES[0, 0, 0] / 100)}")


@pytest.mark.browser
def test_another_kind_of_noise_keeps_the_place_of_the_level(opened):
    page = opened(PAGES["intervals"]())
    for kind, value in (("bits", "3"), ("relative", "0.5")):
        choose(page, "noise", kind)
        assert words(page) and page.get_by_role("spinbutton").input_value() == value
    page.locator("canvas").press("ArrowDown")
    other, some = (TABLES["relative"][name][:, 1] for name in ("SGD", "SAM, wider"))
    ahead = 100 * (some - other)
    points = f"{abs(ahead.mean()):.1f} ± {ahead.std(ddof=1):.1f} points"
    side = "behind" if ahead.mean() < 0 else "ahead of"
    assert words(page).startswith(f"SAM, wider: {told(some)} over 3 seeds; {points} {side} SGD.")
    assert redrawn(page, lambda: choose(page, "compared with", "SAM, wider"))
    assert "points" not in words(page)


@pytest.mark.browser
def test_kinds_and_levels_of_something_else_have_their_own_words(opened):
    budgets = maps.Intervals(TABLES, LEVELS, other="SGD", words=("labels", "gradients"))
    assert budgets._picture()[1].startswith("Test accuracy, labels relative, gradients 0: SGD ")
    page = opened(budgets)
    choose(page, "labels", "bits")
    assert type_in(page, "gradients", 4).input_value() == "4"
    assert words(page).startswith(f"SGD: {told(TABLES['bits']['SGD'][:, 2])} over")


def test_a_shift_costs_a_minimum_half_its_sharpness_times_the_shift_squared():
    one = maps.ShiftedLoss(shift=0.1, sharpness=8, lead=0.05)
    np.testing.assert_allclose(one.loss([-1.0, 1.0], 0), [0, 0.05], atol=1e-6)
    np.testing.assert_allclose(one.loss([-1.0, 1.0]), [0.04, 0.055], atol=1e-6)


@pytest.mark.browser
def test_the_shifted_loss_says_what_both_minima_cost_and_is_dragged(opened):
    page = opened(PAGES["shift"]())
    canvas = page.locator("canvas")
    for name, value in (("shift", -0.04), ("sharpness", 32), ("lead", 0.05)):
        type_in(page, name, value)
    canvas.press("ArrowLeft")

    def said(shift):
        loss = maps.ShiftedLoss(shift=shift, sharpness=32, lead=0.05).loss
        sharp, flat = loss([-1.0, 1.0]).round(2)
        best = "sharp" if sharp < flat else "flat"
        text = f"Shift {shift:.2f}: test loss {sharp:.2f} at the sharp minimum, {flat:.2f} at the "
        text += f"flat one. The {best} one is better by {abs(sharp - flat):.2f}"
        return text.replace("-", "−")

    assert words(page).startswith(said(-0.06))
    lab.drag(canvas, (100, 100), (300, 100))
    assert words(page).startswith(said(0.6))  # the curve went along, as far as it goes
    place = {"x": 0.7 * canvas.bounding_box()["width"], "y": 100}
    assert redrawn(page, lambda: canvas.click(position=place))
    assert "Shift 0.60" not in words(page)


@pytest.mark.browser
def test_a_run_of_the_trade_off_is_found_by_key_and_pointer_with_its_landscape(opened):
    off = PAGES["trade-off"]()
    page = opened(off)
    off.label_noise, off.budget = 0.0, "equal gradients"
    choose(page, "training labels", "clean")
    choose(page, "budget", off.budget)
    row, canvas = off.shown()[2], page.locator("canvas")
    canvas.press("ArrowRight")  # from SAM's first seed
    assert redrawn(page, lambda: canvas.press("ArrowDown"))
    rise, accuracy, (first, *_, last) = row["average_rise"][1], row["test"][1], row["rise"][1]
    said = f"{row['name']}, seed {off.study['seeds'][1]}: average rise {rise:.4f} nats, "
    said += f"test accuracy {100 * accuracy:.1f} %; at the ends"
    assert words(page).startswith(said) and f"{first:.2f} and {last:.2f} nats" in words(page)
    # Its landscape: it stays.
    canvas.hover(position={"x": canvas.bounding_box()["width"] - 60, "y": 150})
    assert words(page).startswith(said)
    canvas.hover(position={"x": 45, "y": 30})  # the flattest and best are there
    best = max(off.shown(), key=lambda run: max(run["test"]) - 5 * min(run["average_rise"]))
    assert words(page).startswith(best["name"]) and said not in words(page)


@pytest.mark.browser
def test_the_atlas_tells_what_is_stored_of_every_setting(opened):
    page = opened(PAGES["atlas"]())
    setting = {"k": 2, "rho": 0.1, "alpha": "adaptive", "lr": 0.03, "label_noise": 0.0}
    for name, axis in (("k,", "k"), ("ρ,", "rho"), ("α,", "alpha")):
        assert redrawn(page, lambda n=name, value=setting[axis]: type_in(page, n, value))
    choose(page, "learning rate", "0.03")
    choose(page, "training labels", "clean")
    page.locator("canvas").press("ArrowLeft")
    row = maps.TrainingAtlas(RESULTS / "atlas.json", **setting).row
    said = f"k = 2, ρ = 0.1, α = adaptive: after epoch 9 test accuracy {row['accuracy'][8]:.1f} %"
    assert words(page).startswith(said) and f"; {row['gradients']} gradients;" in words(page)
    page.locator("summary").click()
    study = json.loads((RESULTS / "atlas.json").read_text("utf-8"))
    for text in ("python notebooks/results/atlas.py", study["commit"], "2880 runs"):
        assert text in page.locator("details").inner_text()


def end_of(step, groups, local, k=3):
    """Where ranks with these images end one step, by hand."""
    sizes, slow = np.array([len(group) for group in groups]), np.array(step.slow)
    points, fast = np.tile(slow, (len(groups), 1)), slow
    for i in range(k + 1):
        own = [-(z.T / (1 + np.exp(z @ p))).mean(1) for z, p in zip(groups, points, strict=True)]
        mean = sizes @ np.array(own) / sizes.sum()
        fast = fast - step.lr * mean if i else fast
        way = np.array(own) if local and not i else np.tile(mean, (len(groups), 1))
        points = points + step.rho * way / np.linalg.norm(way, axis=1, keepdims=True)
    return slow + step.alpha * (fast - slow)


@pytest.mark.browser
def test_ranks_end_where_one_process_does_unless_they_climb_apart(opened):
    step = maps.SharedStep()
    page, images = opened(step), np.array(step.images)
    alone = end_of(step, [images], False)
    gap = np.linalg.norm(end_of(step, np.split(images, 4), True) - alone)
    assert f"it ends {float(f'{gap:.2g}')} from where one process ends" in words(page)
    assert redrawn(page, lambda: page.locator("canvas").press("ArrowRight"))
    assert words(page).startswith("Gradient 1 of 0 to 3")
    choose(page, "each, the first:", "global")
    assert "it ends where one process ends" in words(page)
    choose(page, "in shares:", "growing")
    assert "Images by rank: 2, 5, 7, 10." in words(page)
    assert "it ends where one process ends" in words(page)
    choose(page, "; take the mean:", "plain")
    assert " from where one process ends" in words(page)
    page.get_by_role("slider", name="φ, the slow weights").press("ArrowUp")
    type_in(page, "R", 1)
    assert "with 1 rank it ends where one process ends" in words(page)


@pytest.mark.browser
def test_the_matrices_tell_what_is_known_and_forgotten_so_far_and_play(opened):
    page = opened(PAGES["tasks"]())
    choose(page, "Learn", "permuted")
    choose(page, "with", "a replay of 50 images")
    lab.rest(page, 0)
    before = page.evaluate(lab.PIXELS, "canvas")
    page.evaluate(LISTENED)
    page.get_by_role("button", name="Play").click()  # from the first task on
    page.wait_for_function("() => said.some(one => one.includes('the 3 tasks learned so far'))")
    page.get_by_role("button", name="Play").wait_for()
    assert "on the one task learned so far: SGD" in page.evaluate("() => said[0]")
    page.wait_for_function(f"before => ({lab.PIXELS})('canvas') === before", arg=before)
    type_in(page, "tasks learned so far", 2)
    R = 100 * torch.tensor([row["accuracy"] for row in LESSONS[6:]])[..., :2, :2]
    page.locator("canvas").press("ArrowRight")

    def said(values):
        each = zip(("SGD", "SAM"), values.mean(1), values.std(1), strict=True)
        return ", ".join(f"{name} {mean:.0f} ± {std:.0f}" for name, mean, std in each)

    one, known, lost = R[..., 1, 1], R[..., 1, :].mean(-1), lifelong.average_forgetting(R)
    assert words(page).startswith(f"Accuracy in % on task 2 after task 2: {said(one)}.")
    assert f" on the 2 tasks learned so far: {said(known)}. " in words(page)
    assert f"Points forgotten: {said(lost)}.".replace("-", "−") in words(page)
    assert page.evaluate(lab.PIXELS, "canvas") != before
