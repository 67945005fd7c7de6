"""What a worker says of an HTTP call: in the one form that ours have, or the worker is ended."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexlet_functions.grants.failures import CallFailed
from nexlet_functions.grants.http_requests import HttpRequest, Reach, request_of
from nexlet_models.start_request import HttpGrant
from nexlet_sandboxes.frames import FrameError

SAID = {"method": "GET", "url": "https://api.example.com/", "headers": [["X-A", "1"]], "follow": True}
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-1000, 1000) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


def test_a_call_in_order() -> None:
    said = request_of([orjson.dumps(SAID), b"body"])
    assert said == HttpRequest("GET", "https://api.example.com/", (("X-A", "1"),), b"body", True)


@pytest.mark.parametrize(
    "change",
    [
        *({"method": 1}, {"url": None}, {"headers": {}}, {"headers": [["X-A"]]}, {"headers": [["X-A", 1]]}),
        *({"headers": ["ab"]}, {"headers": [["a", "b", "c"]]}, {"follow": 1}, {"more": 1}),
    ],
)
def test_one_of_another_form_was_not_written_by_a_worker_of_ours(change: dict[str, object]) -> None:
    with pytest.raises(FrameError):
        request_of([orjson.dumps(SAID | change), b""])


@given(st.lists(st.binary(max_size=40), max_size=3))
def test_bytes_of_any_kind_are_a_frame_error(parts: list[bytes]) -> None:
    with pytest.raises(FrameError):
        request_of(parts)


@given(st.dictionaries(st.sampled_from(sorted(SAID)), VALUES), st.binary(max_size=40))
def test_whatever_is_said_is_refused_or_granted(change: dict[str, object], body: bytes) -> None:
    try:
        said = request_of([orjson.dumps(SAID | change), body])
    except FrameError:
        return
    try:
        method, url, _ = Reach(HttpGrant(hosts=("api.example.com",))).begin(said, 1000)
    except CallFailed:
        return
    assert (method, url.host) in (("GET", "api.example.com"), ("HEAD", "api.example.com"))
