"""The command line: `nexlet-functions`, `nexfn` for short.

One module a command. What a command needs it imports when it runs, so that `nexfn version` and shell completion do not
wait for NATS, pydantic and the sandbox to be loaded.
"""

from __future__ import annotations

import os
import sys

__all__ = ["main"]


def main() -> None:
    """Run the command line with the process's arguments and environment, and end the process with its exit code."""
    _have_standard_streams()
    try:
        from nexlet_functions.cli import ahead  # all of it is loaded for whoever runs it, not for whoever imports it

        ahead.begin(sys.argv[1:])
        from nexlet_functions.cli.app import run

        run()
    except KeyboardInterrupt:  # while all that was loaded: there was nobody yet who ends in order
        sys.exit(130)


def _have_standard_streams() -> None:
    """Nothing to read and nobody to tell, where one of them was closed before we were executed.

    Else the next file or socket that is opened has its number, and is what others take for standard output.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is None:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
            os.set_inheritable(number, True)
            setattr(sys, name, os.fdopen(number, mode, encoding="utf-8"))
