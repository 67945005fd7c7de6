"""The recorded session: done again, it goes as the page says."""

from __future__ import annotations

from pathlib import Path

from tests.support.session import PAGE, normalised, record


async def test_it_still_goes_like_that(tmp_path: Path) -> None:
    again = await record(tmp_path)
    assert normalised(again) == normalised(PAGE.read_text()), "if that is how it should go: make session"


def test_what_varies_is_taken_out_and_nothing_else() -> None:
    assert normalised("200 in 1.25 ms by demo/NtXq0KQ2rR7y1bZl4w5cVa") == "200 in N ms by demo/ID"
    assert normalised("by demo/NtXq0KQ2rR7y1bZl4w5cVa, invocation iA5D-SF3BY_V.2f") == "by demo/ID, invocation ID"
    assert normalised("12:04:59  ok  demo  demo.greet  0.2 ms") == "HH:MM:SS  ok  demo  demo.greet  N ms"
    assert normalised("error 422: name: a text is expected") == "error 422: name: a text is expected"
