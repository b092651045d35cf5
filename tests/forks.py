"""Processes forked from a server that has imported torch and the package: none waits for them."""

import contextlib
import multiprocessing
import os
import random
import socket
import sys
import time
from typing import ClassVar
from unittest import mock

import torch
from jupyter_client.provisioning import local_provisioner

CONTEXT = multiprocessing.get_context("forkserver")
HEAVY = ["torch._dynamo", "lookbehind.__main__", "lookbehind.study", "ipykernel.kernelapp"]
CONTEXT.set_forkserver_preload([*HEAVY, "pair"])


def free_port():
    """One of this machine that no kernel and no browser gets by chance: those take higher ones."""
    for port in random.SystemRandom().sample(range(20_000, 32_000), 100):
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port
    raise OSError("no free port found")


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


def unhurried(*words):
    """What the console script does, with a rest after each epoch, in which to interrupt it."""
    from lookbehind.__main__ import main
    from lookbehind.train import Run

    plain = Run.save
    Run.save = lambda run, path: (plain(run, path), time.sleep(0.5))
    sys.argv = ["lookbehind", *words]
    main()


class Kernel:
    """A kernel of Jupyter, forked; to jupyter_client it is a `subprocess.Popen`."""

    stdin = stdout = stderr = None
    pids: ClassVar[list[int]] = []

    def __init__(self, command, cwd, env, **_):
        here = os.path.dirname(__file__)
        path = [folder for folder in sys.path if folder != here]  # as Python finds it
        self._process = start(_kernel, command, path, cwd, **env)
        self.pid = self._process.pid
        while os.getpgid(self.pid) != self.pid:  # it shall be killed with what it has started
            time.sleep(0.001)
        self.pids.append(self.pid)

    def poll(self):
        return self._process.exitcode

    def wait(self):
        self._process.join()
        return self.poll()

    def send_signal(self, number):
        os.kill(self.pid, number)


def _kernel(command, path, cwd):
    from ipykernel import kernelapp

    os.setsid()
    os.chdir(cwd)
    os.environ["JPY_PARENT_PID"] = str(os.getppid())
    sys.path[:] = path
    sys.argv = command[2:]  # python -m ipykernel_launcher …
    kernelapp.launch_new_instance()


def kernels():
    """From now on jupyter_client forks its kernels."""
    local_provisioner.launch_kernel = Kernel
