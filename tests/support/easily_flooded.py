"""The command line, where a function counts as flooded from a few messages a second on: for tests of whole processes.

python -m tests.support.easily_flooded up ...
"""

from __future__ import annotations

from nexlet_functions.cli import main
from nexlet_functions.functions import floods

__all__: list[str] = []

MESSAGES = 100.0
"""A second: what a client of a test sends without effort."""

if __name__ == "__main__":
    floods.FLOOD_MESSAGES = MESSAGES  # type: ignore[misc]  # a constant to everybody else
    main()
