"""A zygote for the tests of the sandbox."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from nexlet_sandboxes.zygote import Zygote


@pytest.fixture
async def zygote() -> AsyncIterator[Zygote]:
    """A real zygote process; what it made is gone when the test ends."""
    made = await Zygote.start()
    yield made
    await made.close()
