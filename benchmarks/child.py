"""A module as a program that ends with the process that started it, also where that one is killed (on Linux).

`python -m benchmarks.child PARENT MODULE [ARGUMENT ...]` runs as `python -m MODULE [ARGUMENT ...]` does. PARENT is the
number of the process that starts it.
"""

import ctypes
import os
import runpy
import signal
import sys

SET_PARENT_DEATH_SIGNAL = 1
"""Linux's PR_SET_PDEATHSIG. The parent is the thread that started the process: it has to wait for it."""


def command(module: str, *arguments: str) -> list[str]:
    """The command line that runs a module as a child of this process."""
    return [sys.executable, "-m", "benchmarks.child", str(os.getpid()), module, *arguments]


def end_with(parent: int) -> None:
    """From now on the system kills this process when `parent`, which started it, ends."""
    ctypes.CDLL(None).prctl(SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before
        os._exit(1)


if __name__ == "__main__":
    _, parent, module, *arguments = sys.argv
    end_with(int(parent))
    sys.argv[1:] = arguments
    runpy.run_module(module, run_name="__main__", alter_sys=True)
