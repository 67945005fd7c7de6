"""The command line: `nexlet-functions`, `nexfn` for short.

One module a command. What a command needs it imports when it runs, so that `nexfn version` and shell completion do not
wait for NATS, pydantic and the sandbox to be loaded.
"""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """Run the command line with the process's arguments and environment, and end the process with its exit code."""
    try:
        from nexlet_functions.cli import ahead  # all of it is loaded for whoever runs it, not for whoever imports it

        ahead.begin(sys.argv[1:])
        from nexlet_functions.cli.app import run

        run()
    except KeyboardInterrupt:  # while all that was loaded: there was nobody yet who ends in order
        sys.exit(130)
