"""What the zygote's interpreter executes: imports in the right order, and then `zygote_process`.

`threading` and `logging` have the interpreter run Python code in each forked process, to mend locks that other threads
may have held. There are no other threads here, and what that code writes to is half a megabyte that every worker would
have for itself. So they are imported first, while nobody registers anything.
"""

from __future__ import annotations

import os
import sys

__all__ = ["SHORT_LIVED", "main"]

SHORT_LIVED = "--short-lived"
"""An argument for a zygote of which a worker or two will come: ready sooner, and they a little larger and later."""


def main() -> None:
    """Import everything, and serve."""
    register = os.register_at_fork
    os.register_at_fork = lambda **_: None
    try:
        import logging  # noqa: F401
        import threading  # noqa: F401
    finally:
        os.register_at_fork = register
    from nexlet_sandboxes import zygote_process

    short_lived = sys.argv[1:2] == [SHORT_LIVED]
    zygote_process.main(sys.argv[2 if short_lived else 1 :], short_lived=short_lived)


if __name__ == "__main__":
    main()
