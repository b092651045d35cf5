"""The training lab: train a network while the numbers k, ρ, α and lr are moved."""

import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import count
from os.path import getmtime
from pathlib import Path
from typing import Any

import torch

from lookbehind.explore.lab import rows
from lookbehind.explore.lab.controls import INVITATION, OPENING, Controls, recipes_in
from lookbehind.explore.lab.training import KERNEL, MOVABLE, Training
from lookbehind.train import Hardware, Outcome, Recipe, choose_hardware, read_checkpoint

DATASETS = ("digits", "cifar10", "cifar100")
ACTS = ("start", "pause", "stop", "reset", "save", "resume", "look_around", "how_flat")


class TrainingLab(Controls):
    """Numbers to move, live curves of every run, and a table of runs that is their legend.

    The lab opens with `recipe`; `recipe` is afterwards what the controls say now. They are traits,
    to read and to set: `method`, `model`, `dataset`, `epochs`, `k`, `rho`, `alpha`, `adaptive`,
    `lr`. `datasets` are the names, or paths of folders of images, on offer; one other than the
    first recipe's is taken whole, and digits without `augment`. `hardware` is where it trains
    (default: `choose_hardware()`; no GPU was at hand to try it on).

    A run trains in a thread, also where the page is closed, to the last bit as `Recipe.run` does; a
    move of k, ρ, α or lr changes it at its next step. After every epoch, where it is paused, and
    where it is stopped, it leaves a checkpoint in `folder`, a file of its own, from which `resume`
    goes on, also in another kernel; the controls then stand where they stood. A run belongs to the
    kernel: a lab that is made meanwhile shows it and can stop it, and an interrupt pauses it.

    Sharpness is `lookbehind.measure.worst_rise` in a ball of radius 0.05, on the first 500 training
    images, after every epoch. `outcome` is that of the last run that ended, `message` the line of
    status, or an error in words (`failed`).

    Raises ValueError where the recipe's budget is not in epochs, TraitError for a setting that
    `Recipe` refuses.
    """

    def __init__(
        self, recipe: Recipe = OPENING, *, datasets: Sequence[str] = DATASETS,
        hardware: Hardware | None = None, folder: str | Path = "lab-runs",
    ) -> None:  # fmt: skip
        self._opening, self._hardware, self._folder = recipe, hardware, Path(folder)
        self._work: Training | None = None  # under way, or the last one
        self._runs: dict[Path, Training] = {}
        self.outcome: Outcome | None = None
        super().__init__(datasets=list(datasets))
        self.put(recipe)
        self.observe(self._moved, [*MOVABLE, "adaptive"])
        self.on_msg(self._told)
        self._list_checkpoints()
        # For its first optimizer torch imports a thousand modules.
        threading.Thread(target=torch.optim.SGD, args=[[torch.zeros(1)]], daemon=True).start()
        KERNEL.listen()
        with KERNEL.lock:
            KERNEL.labs.add(self)
            if KERNEL.runs:
                training = KERNEL.runs[-1]  # that another lab began
                self.put(training.wanted)
                self._work = self._runs[training.path] = training
                self._say(f"An earlier run still trains: {training.wanted}. Stop ends it.")
                self.show(training)

    @property
    def table(self) -> list[dict[str, Any]]:
        """The finished runs, in their order: settings, scores, flatness, seconds, status."""
        return [run["row"] for run in self.runs]

    @property
    def running(self) -> bool:
        """Whether a run is under way, be it paused."""
        return self._under_way is not None

    @property
    def _under_way(self) -> Training | None:
        return self._work if self._work in KERNEL.runs else None

    def wait(self) -> None:
        """Return when the run under way has ended."""
        while True:  # an interrupt of Thread.join takes the thread for ended (CPython 3.11)
            with KERNEL.lock:
                if not self.running:
                    return
            time.sleep(0.005)

    def start(self) -> None:
        """Start a run in a thread; what the Start button does."""
        recipe, when = self.recipe, time.strftime("%Y%m%d-%H%M%S")
        name = Path(recipe.dataset.replace("\\", "/")).name  # of a folder, its last part
        with KERNEL.lock:
            path = self._new("-".join([when, name, recipe.model, recipe.method]))
            self._launch(recipe, path, f"Loading {name}.")

    def pause(self) -> None:
        """Hold the run under way after its step, or let it go on."""
        with KERNEL.lock:
            if training := self._under_way:
                going = f"Training: {training.wanted}"
                self._say(going if training.pausing else "Pausing after the step under way.")
                training.pausing = "" if training.pausing else "Paused"
                self.show(training)

    def stop(self) -> None:
        """End the run under way after its step; its curves, weights and a checkpoint stay."""
        with KERNEL.lock:
            if training := self._under_way:
                self._say("Stopping after the step under way.")
                training.stop()

    def reset(self) -> None:
        """Stop, hide all curves, and put the controls back. Checkpoints and the table stay."""
        self.stop()
        self.hidden = [path.stem for path in self._runs]
        self.put(self._opening)
        self._say(INVITATION)

    def save(self) -> None:
        """Write a checkpoint of the run under way beside the one that every epoch replaces."""
        if training := self._under_way:
            self._say("Saving after the step under way.")
            training.copy_to = self._new(f"{training.path.stem}-saved")
        elif self._work and self._work.path.exists():
            self._say(f"The last run is saved as {self._work.path.name}.")
        else:
            self._say("Nothing to save yet: press Start.")

    def resume(self) -> None:
        """Go on with the run of the chosen checkpoint, its settings put back on the controls."""
        if not self.checkpoint:
            self._list_checkpoints()
        if not self.checkpoint:
            self._say(f"No checkpoint in the folder {self._folder} yet: press Start.")
            return
        path = self._folder / f"{self.checkpoint}.pt"
        try:
            if self.running or path in [run.path for run in KERNEL.runs]:
                raise ValueError("a run is under way")
            began, now = recipes_in(path, read_checkpoint(path))
            self.put(now)
            self._launch(began, path, f"Resuming {path.name}.", now)
        except (ValueError, OSError) as error:
            self._say(f"Not resumed: {error}", failed=True)

    def look_around(self) -> None:
        """Open the landscape explorer on the networks of the runs that are shown, in `around`."""
        from lookbehind.explore.landscape import LandscapeExplorer

        chosen = self._chosen()
        networks: Any = {f"{n}. {run.now}": run.outcome for n, run in enumerate(chosen, 1)}
        try:
            if chosen and chosen[-1].dataset:
                self.around = LandscapeExplorer(networks, chosen[-1].dataset)
                self._say(f"Below, the landscape around {', '.join(networks)}.")
        except Exception as error:  # whatever a network does
            self._say(f"Not opened. {type(error).__name__}: {error}", failed=True)

    def how_flat(self) -> None:
        """Measure, in a thread, the worst rise and the robustness of the runs that are shown."""
        if chosen := self._chosen():
            self._say(f"Measuring {len(chosen)} of the networks.")
            threading.Thread(target=self._measure, args=(chosen,), daemon=True).start()

    # What the kernel's runs call, from their threads, one at a time.

    def hear(self, training: Training, text: str) -> None:
        if training is self._work:
            self._say(text)

    def show(self, training: Training) -> None:
        self.earlier = [[str(r.path), str(r.now)] for r in KERNEL.runs if r is not self._work]
        if training is self._work:
            self.live = rows.drawn(training)

    def ended(self, training: Training) -> None:
        self.show(training)
        if training is not self._work:
            return
        self.outcome = training.outcome or self.outcome
        with self.hold_sync():
            self._list_runs()
            self._list_checkpoints()
            self.live = {}
        self._say(rows.end_text(training), failed=bool(training.error))

    def _handle_msg(self, msg: Any) -> None:
        with KERNEL.lock:  # JupyterLab may press two buttons in two threads
            super()._handle_msg(msg)

    def _told(self, _: Any, content: Any, __: Any) -> None:
        """The page pressed a button, with its controls where they stand."""
        self.set_state(content.get("state", {}))
        act = content.get("do")
        if act in ACTS:
            getattr(self, act)()
        elif act == "end":
            for run in KERNEL.runs:
                if str(run.path) == content.get("key"):
                    run.stop()

    def _launch(self, recipe: Recipe, path: Path, words: str, now: Recipe | None = None) -> None:
        hardware = self._hardware = self._hardware or choose_hardware()
        with KERNEL.lock:
            if self.running:
                return
            self._say(words)
            before = self._runs.pop(path, None)
            training = Training(recipe, path, hardware, now=now, before=before)
            self._work = self._runs[path] = training
            self.hidden = [key for key in self.hidden if key != path.stem]
            KERNEL.runs.append(training)
            KERNEL.tell("show", training)
            training.thread.start()

    def _moved(self, _: Any) -> None:
        """A number was moved: tell the run, and say so at once."""
        with KERNEL.lock:  # else the run may have taken it before that is said
            training = self._under_way
            if training is None or training.stopped or self.method != training.recipe.method:
                return
            moved = {name: getattr(self.recipe, name) for name in MOVABLE}
            training.wanted = replace(training.now, **moved)
            coming = training.wanted != training.now
            doing = "Paused" if training.pausing else "Training"
            self._say(f"{doing}{'; from the next step on' if coming else ''}: {training.wanted}")

    def _measure(self, chosen: Sequence[Training]) -> None:
        try:
            for run in chosen:
                run.flatness = rows.flatness(run)
        except Exception as error:  # whatever a network does
            self._say(f"Not measured. {type(error).__name__}: {error}", failed=True)
            return
        with KERNEL.lock:
            self._list_runs()
            self._say("Measured: the worst rise near each network, and its accuracy under noise.")

    def _chosen(self) -> list[Training]:
        """The finished runs that are shown; says so where there are none."""
        chosen = [r for r in self._runs.values() if r.outcome and r.path.stem not in self.hidden]
        if not chosen:
            self._say("No finished run is shown: press Start, or click a row of the table.")
        return chosen

    def _new(self, stem: str) -> Path:
        """A file that no run has, written or not."""
        names = (stem if n == 1 else f"{stem}-{n}" for n in count(1))
        paths = (self._folder / f"{name.lower()}.pt" for name in names)
        taken = {*self._runs, *(run.path for run in KERNEL.runs)}
        return next(path for path in paths if path not in taken and not path.exists())

    def _list_runs(self) -> None:
        self.runs = [rows.drawn(run) for run in self._runs.values() if run not in KERNEL.runs]

    def _list_checkpoints(self) -> None:
        """Offer what lies in the folder, the newest first and chosen."""
        names = [p.stem for p in sorted(self._folder.glob("*.pt"), key=getmtime, reverse=True)]
        if names != self.checkpoints:
            self.checkpoints, self.checkpoint = names, names[0] if names else ""
