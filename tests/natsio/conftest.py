"""Everything about connections is tested over nats-py's private names, in both ways of reading, and without them."""

from __future__ import annotations

import pytest

from nexlet_functions.natsio import Options, fast


@pytest.fixture(params=["tapped", "parsed", "public"])
def options(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Options:
    """Options of a connection: the fast path, that of transports which cannot be tapped, and the fallback."""
    if request.param == "parsed":
        monkeypatch.setattr(fast._Tap, "into", lambda client, router: None)
    return Options(public_only=request.param == "public", retry_refused=0.2)
