"""A sandbox for the tests: a real zygote, and each profile in turn."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from nexlet_sandboxes.profiles import PROFILES
from nexlet_sandboxes.zygote import Zygote
from tests.support.pools import Sandbox


@pytest.fixture
async def zygote() -> AsyncIterator[Zygote]:
    """A real zygote process; what it made is gone when the test ends."""
    made = await Zygote.start()
    yield made
    await made.close()


@pytest.fixture(params=sorted(PROFILES))
def sandbox(zygote: Zygote, request: pytest.FixtureRequest) -> Sandbox:
    """That zygote with every profile: whatever a test says holds in all of them."""
    return Sandbox(zygote, request.param)


@pytest.fixture(params=sorted(name for name, profile in PROFILES.items() if not profile.single_use))
def warm(zygote: Zygote, request: pytest.FixtureRequest) -> Sandbox:
    """Every profile whose workers are used again, for what is about just that."""
    return Sandbox(zygote, request.param)
