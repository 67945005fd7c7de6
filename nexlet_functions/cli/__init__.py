"""The command line: `nexlet-functions`, `nexfn` for short.

One module a command. What a command needs it imports when it runs, so that `nexfn version` and shell completion do not
wait for NATS, pydantic and the sandbox to be loaded.
"""

from __future__ import annotations

__all__ = ["main"]


def main() -> None:
    """Run the command line with the process's arguments and environment, and end the process with its exit code."""
    from nexlet_functions.cli.app import run  # the rest is loaded for whoever runs it, not for whoever imports it

    run()
