"""What is an extra: the nexlet does without it, and says what is missing to whoever asks for it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from nexlet_functions.observing.extras import ExtraMissing
from nexlet_functions.observing.listening import Address
from nexlet_functions.observing.status import claim


def test_nothing_of_an_extra_is_loaded_for_whoever_does_not_ask_for_it() -> None:
    script = (
        "import sys; import nexlet_functions.nexlet, nexlet_functions.cli.up;"
        "print([name for name in ('prometheus_client', 'h11', 'opentelemetry') if name in sys.modules])"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ended.stdout == "[]\n"


@pytest.mark.parametrize("missing", ["prometheus_client", "h11"])
def test_what_is_missing_is_named_with_the_extra_that_has_it(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ExtraMissing, match=rf"--metrics needs {missing}, .* install 'nexlet-functions\[metrics\]'"):
        claim(Address("127.0.0.1", 0))
