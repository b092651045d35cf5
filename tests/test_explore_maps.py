"""The maps, the atlas, shared steps, shifted losses: what they say, and their pages in Chromium."""

import json
from pathlib import Path

import lab
import numpy as np
import pytest
import torch
from lab import type_in
from traitlets import TraitError

from lookbehind.explore.maps import (
    HeatMaps,
    Intervals,
    SharedStep,
    ShiftedLoss,
    TaskMatrices,
    TradeOff,
    TrainingAtlas,
)
from lookbehind.study import lifelong

RESULTS = Path(__file__).parents[1] / "notebooks" / "results"
AXES = {"k": [1, 2], "α": [0.2, "adaptive", 0.8], "ρ": [0.1, 0.2, 0.3, 0.4]}
VALUES = np.random.default_rng(0).uniform(20, 90, size=(2, 3, 4, 5))
MAPPED = np.stack([VALUES.mean(3), VALUES.std(3, ddof=1)], -1)
LEVELS = {"relative": [0.0, 0.5, 1.0], "bits": [2, 3, 4, 5]}
TABLES = {
    kind: {
        name: VALUES[0, :3, : len(some), i] / 100 for i, name in enumerate(("SGD", "SAM, wider"))
    }
    for kind, some in LEVELS.items()
}
NUMBERS = np.random.default_rng(1).random((3, 5, 4, 4))
LESSONS = [
    {"name": name, "sequence": of, "memory": memory, "accuracy": R.tolist()}
    for of, tasks in (("split", 4), ("permuted", 3))
    for i, memory in enumerate((0, 50))
    for name, R in zip(("SGD", "SAM"), NUMBERS[i : i + 2, ..., :tasks, :tasks], strict=True)
]
PIXELS = "() => document.querySelector('canvas').toDataURL()"
PAGES = {
    "heat maps": lambda: HeatMaps({"accuracy (%)": MAPPED, "sharpness": 2 * MAPPED}, AXES, seeds=5),
    "intervals": lambda: Intervals(TABLES, LEVELS, other="SGD", at=1),
    "shared step": SharedStep,
    "shift": lambda: ShiftedLoss(shift=0.2),
    "tasks": lambda: TaskMatrices(LESSONS),
    "atlas": lambda: TrainingAtlas(RESULTS / "atlas.json"),
    "trade-off": lambda: TradeOff(RESULTS / "lines.json"),
}


@pytest.mark.parametrize("index", range(4))
def test_a_map_shows_the_mean_over_the_seeds_and_the_span_turns_it(index):
    maps = PAGES["heat maps"]()
    maps.at = index
    for shown, factor in zip(maps.shown(), (1, 2), strict=True):
        np.testing.assert_allclose(shown, factor * VALUES[:, :, index].mean(2), rtol=1e-3)
    maps.span, maps.at = ["ρ", "k"], 1
    np.testing.assert_allclose(maps.shown()[0], VALUES[:, 1].mean(2).T, rtol=1e-3)


def test_what_does_not_fit_is_named():
    for array in (VALUES, VALUES.mean(3)):
        with pytest.raises(ValueError, match=r"shape \(2, 3, 4, 2\) for .*; got .* for 'acc'"):
            HeatMaps({"acc": array}, AXES, seeds=5)
    for levels, other in (({**LEVELS, "bits": [2]}, "SGD"), (LEVELS, "Adam")):
        with pytest.raises(ValueError, match=r"tables must hold \(seeds, .*got"):
            Intervals(TABLES, levels, other=other)
    for rows in (LESSONS[:2] + LESSONS[4:], [{**LESSONS[0], "accuracy": [[0.5]]}], []):
        said = r"rows must hold (\(seeds, T, T\) for \('split', |a row at least, got none)"
        with pytest.raises(ValueError, match=said):
            TaskMatrices(rows)
    with pytest.raises(TraitError, match=r"'sharpness' trait .* any of \[1, 2, .*not the int 3"):
        ShiftedLoss(sharpness=3)
    for wrong in ({"k": 4}, {"eta": 0.1}):
        with pytest.raises(ValueError, match=r"setting must .*, got (k=4|eta=0.1)"):
            TrainingAtlas(RESULTS / "atlas.json", **wrong)
    for wrong in ({"ranks": 9}, {"climb": "own"}):
        with pytest.raises(TraitError, match=r"'(ranks|climb)' trait .* (9|any of .*'own')"):
            SharedStep(**wrong)


@pytest.fixture
def opened(tab, tmp_path):
    """A function: the page of an explorer in the tab, on a desktop."""

    def show(explorer):
        lab.show(tab, lab.saved(explorer, tmp_path / "page.html"))
        return tab

    yield show
    assert not tab.problems


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


@pytest.mark.browser
def test_a_cell_tells_its_mean_and_spread_and_the_best_is_marked(opened):
    page = opened(PAGES["heat maps"]())
    row, column = np.unravel_index(VALUES[:, :, 2].mean(2).argmax(), (2, 3))
    best = f"k = {AXES['k'][row]}, α = {AXES['α'][column]}"
    some = VALUES[row, column, 2]
    said = f"{best}: accuracy {some.mean():.1f} % ± {some.std(ddof=1):.1f}; sharpness"
    assert words(page).startswith(said)
    assert f"★ best accuracy of this map: {best}, {some.mean():.1f} %." in words(page)
    cells = page.get_by_role("slider", name="a cell of the maps")
    assert redrawn(page, lambda: cells.press("ArrowRight" if column < 2 else "ArrowLeft"))
    assert best not in cells.get_attribute("aria-valuetext")
    page.get_by_label("map of", exact=True).select_option(label="ρ")  # for k, held from now on
    assert words(page).startswith("ρ = ")
    assert type_in(page, "k", 1).get_attribute("aria-valuetext") == "1"
    page.get_by_label("×", exact=True).select_option(label="ρ")  # the two change places
    box = page.locator("canvas").bounding_box()
    page.mouse.move(box["x"] + 100, box["y"] + 40)
    some = VALUES[0, 0, 0]
    assert words(page).startswith(f"α = 0.2, ρ = 0.1: accuracy {some.mean():.1f} % ± ")


@pytest.mark.browser
def test_another_kind_of_noise_keeps_the_place_of_the_level(opened):
    page = opened(PAGES["intervals"]())
    for kind, value in (("bits", "3"), ("relative", "0.5")):
        page.get_by_label("noise", exact=True).select_option(label=kind)
        assert words(page) and page.get_by_role("spinbutton").input_value() == value
    page.locator("canvas").press("ArrowDown")
    some = 100 * TABLES["relative"]["SAM, wider"][:, 1]
    ahead = some - 100 * TABLES["relative"]["SGD"][:, 1]
    points = f"{abs(ahead.mean()):.1f} ± {ahead.std(ddof=1):.1f} points"
    side = "behind" if ahead.mean() < 0 else "ahead of"
    said = f"SAM, wider: {some.mean():.1f} % ± {some.std(ddof=1):.1f} over 3 seeds; "
    assert words(page).startswith(f"{said}{points} {side} SGD.")
    other = page.get_by_label("compared with", exact=True)
    assert redrawn(page, lambda: other.select_option(label="SAM, wider"))
    assert "points" not in words(page)


@pytest.mark.browser
def test_kinds_and_levels_of_something_else_have_their_own_words(opened):
    budgets = Intervals(TABLES, LEVELS, other="SGD", words=("labels", "gradients"))
    assert budgets._picture()[1].startswith("Test accuracy, labels relative, gradients 0: SGD ")
    page = opened(budgets)
    page.get_by_label("labels", exact=True).select_option(label="bits")
    assert type_in(page, "gradients", 4).input_value() == "4"
    some = 100 * TABLES["bits"]["SGD"][:, 2]
    assert words(page).startswith(f"SGD: {some.mean():.1f} % ± {some.std(ddof=1):.1f} over")


def test_a_shift_costs_a_minimum_half_its_sharpness_times_the_shift_squared():
    one = ShiftedLoss(shift=0.1, sharpness=8, lead=0.05)
    np.testing.assert_allclose(one.loss([-1.0, 1.0], 0), [0, 0.05], atol=1e-6)
    np.testing.assert_allclose(one.loss([-1.0, 1.0]), [0.04, 0.055], atol=1e-6)


@pytest.mark.browser
def test_the_shifted_loss_says_what_both_minima_cost_and_is_dragged(opened):
    page = opened(PAGES["shift"]())
    box, canvas = page.locator("canvas").bounding_box(), page.locator("canvas")
    for name, value in (("shift", -0.04), ("sharpness", 32), ("lead", 0.05)):
        type_in(page, name, value)
    canvas.press("ArrowLeft")

    def said(shift):
        sharp, flat = ShiftedLoss(shift=shift, sharpness=32, lead=0.05).loss([-1.0, 1.0]).round(2)
        best, by = "sharp" if sharp < flat else "flat", abs(sharp - flat)
        text = f"test loss {sharp:.2f} at the sharp minimum, {flat:.2f} at the flat one. "
        text += f"The {best} one is better by {by:.2f}"
        return f"Shift {shift:.2f}: {text}".replace("-", "−")

    assert words(page).startswith(said(-0.06))
    page.mouse.move(box["x"] + 100, box["y"] + 100)
    page.mouse.down()
    page.mouse.move(box["x"] + 300, box["y"] + 100, steps=4)
    page.mouse.up()
    assert words(page).startswith(said(0.6))  # the curve went along, as far as it goes
    assert redrawn(page, lambda: canvas.click(position={"x": 0.7 * box["width"], "y": 100}))
    assert "Shift 0.60" not in words(page)


@pytest.mark.browser
def test_a_run_of_the_trade_off_is_found_by_key_and_pointer_with_its_landscape(opened):
    off = PAGES["trade-off"]()
    page = opened(off)
    off.label_noise, off.budget = 0.0, "equal gradients"
    for name, label in (("training labels", "clean"), ("budget", off.budget)):
        page.get_by_label(name, exact=True).select_option(label=label)
    row, before = off.shown()[2], page.evaluate(PIXELS)
    for key in ("ArrowRight", "ArrowDown"):  # from SAM's first seed
        page.locator("canvas").press(key)

    def said(i):
        rise, accuracy = row["average_rise"][i], 100 * row["test"][i]
        ends = f"{row['rise'][i][0]:.2f} and {row['rise'][i][-1]:.2f} nats"
        told = f"average rise {rise:.4f} nats, test accuracy {accuracy:.1f} %"
        return f"{row['name']}, seed {off.study['seeds'][i]}: {told}; at the ends", ends

    assert all(text in words(page) for text in said(1)) and page.evaluate(PIXELS) != before
    box = page.locator("canvas").bounding_box()
    page.mouse.move(box["x"] + box["width"] - 60, box["y"] + 150)  # its landscape: it stays
    assert words(page).startswith(said(1)[0])
    page.mouse.move(box["x"] + 45, box["y"] + 30)  # the flattest and best are there
    best = max(off.shown(), key=lambda run: max(run["test"]) - 5 * min(run["average_rise"]))
    assert words(page).startswith(best["name"]) and said(1)[0] not in words(page)


@pytest.mark.browser
def test_the_atlas_tells_what_is_stored_of_every_setting(opened):
    page = opened(PAGES["atlas"]())
    setting = {"k": 2, "rho": 0.1, "alpha": "adaptive", "lr": 0.03, "label_noise": 0.0}
    for name, axis in (("k,", "k"), ("ρ,", "rho"), ("α,", "alpha")):
        assert redrawn(page, lambda n=name, value=setting[axis]: type_in(page, n, value))
    page.get_by_label("learning rate", exact=True).select_option(label="0.03")
    page.get_by_label("training labels", exact=True).select_option(label="clean")
    page.locator("canvas").press("ArrowLeft")
    row = TrainingAtlas(RESULTS / "atlas.json", **setting).row
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
    step = SharedStep()
    page, images = opened(step), np.array(step.images)
    alone = end_of(step, [images], False)
    gap = np.linalg.norm(end_of(step, np.split(images, 4), True) - alone)
    assert f"it ends {float(f'{gap:.2g}')} from where one process ends" in words(page)
    assert redrawn(page, lambda: page.locator("canvas").press("ArrowRight"))
    assert words(page).startswith("Gradient 1 of 0 to 3")
    page.get_by_label("each, the first:", exact=True).select_option(label="global")
    assert "it ends where one process ends" in words(page)
    page.get_by_label("in shares:", exact=True).select_option(label="growing")
    assert "Images by rank: 2, 5, 7, 10." in words(page)
    assert "it ends where one process ends" in words(page)
    page.get_by_label("; take the mean:", exact=True).select_option(label="plain")
    assert " from where one process ends" in words(page)
    page.get_by_role("slider", name="φ, the slow weights").press("ArrowUp")
    type_in(page, "R", 1)
    assert "with 1 rank it ends where one process ends" in words(page)


@pytest.mark.browser
def test_the_matrices_tell_what_is_known_and_forgotten_so_far_and_play(opened):
    page = opened(PAGES["tasks"]())
    page.get_by_label("Learn", exact=True).select_option(label="permuted")
    page.get_by_label("with", exact=True).select_option(label="a replay of 50 images")
    lab.rest(page, 0)
    before = page.evaluate(PIXELS)
    page.evaluate(LISTENED)
    page.get_by_role("button", name="Play").click()  # from the first task on
    page.wait_for_function("() => said.some(one => one.includes('the 3 tasks learned so far'))")
    page.get_by_role("button", name="Play").wait_for()
    assert "on the one task learned so far: SGD" in page.evaluate("() => said[0]")
    page.wait_for_function(f"before => ({PIXELS})() === before", arg=before)
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
    assert page.evaluate(PIXELS) != before
