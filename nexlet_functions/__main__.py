"""`python -m nexlet_functions`: the command line, where no script was installed."""

from __future__ import annotations

from nexlet_functions.cli import main

if __name__ == "__main__":
    main()
