"""Processes forked from a server that has imported torch and the package: none waits for them."""

import multiprocessing
import os
import sys
from unittest import mock

import torch

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["pair", "lookbehind.__main__", "torch._dynamo"])


def start(target, *arguments, said=os.devnull, **environment):
    """A process that runs `target`, and writes all that it says into the file `said`."""
    process = CONTEXT.Process(target=_run, args=(target, arguments, said, environment))
    with mock.patch.dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path)):  # of the server
        process.start()
    return process


def _run(target, arguments, said, environment):
    os.environ.update(environment)
    with open(said, "wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    torch.set_num_threads(1)
    target(*arguments)


def lookbehind(*words):
    """What the console script does."""
    from lookbehind.__main__ import main

    sys.argv = ["lookbehind", *words]
    main()
