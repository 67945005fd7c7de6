"""Everything about connections is tested over nats-py's private names and without them."""

from __future__ import annotations

import pytest

from nexlet_functions.natsio import Options


@pytest.fixture(params=["fast", "public"])
def options(request: pytest.FixtureRequest) -> Options:
    """Options of a connection: one run on the fast path, one on the fallback."""
    return Options(public_only=request.param == "public", retry_refused=0.2)
