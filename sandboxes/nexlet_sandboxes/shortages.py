"""What the machine has run out of, in words that an operator can act on."""

from __future__ import annotations

import errno
from typing import Final

__all__ = ["in_words"]

_SHORTAGES: Final = {
    errno.EAGAIN: "out of processes: the limit of this user (ulimit -u, LimitNPROC=) or of the control group "
    "(pids.max, TasksMax=) is reached",
    errno.ENOMEM: "out of memory for another process: the machine or the control group (memory.max) has none left, or "
    "the kernel promises no more than it has (vm.overcommit_memory)",
    errno.EMFILE: "out of descriptors: the limit of this process (ulimit -n, LimitNOFILE=) is reached; a worker takes "
    "three",
    errno.ENFILE: "out of descriptors: the limit of the whole machine (fs.file-max) is reached",
    errno.ENOSPC: "out of user namespaces, process numbers or inotify watches: a limit of the machine (user.max_* or "
    "kernel.pid_max) is reached",
}


def in_words(error: OSError) -> str:
    """What `error` says, and which limit it is about where making a process failed for want of something."""
    text = error.strerror or type(error).__name__
    meant = _SHORTAGES.get(error.errno or 0)
    return f"{meant} ({text})" if meant is not None else f"{type(error).__name__}: {text}"
