"""What happens when something breaks, under load or not: `make faults` runs this folder alone, and all of it.

What is right or wrong whatever the time it takes runs in `make test`, too. A test that takes long, or asserts a figure
(milliseconds, megabytes), is marked `@pytest.mark.faults` and is left out there.
"""

from __future__ import annotations

from tests.support.live import live, temporary

__all__ = ["live", "temporary"]
