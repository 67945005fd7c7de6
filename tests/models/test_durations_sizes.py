from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexlet_models.durations import format_duration, parse_duration
from nexlet_models.errors import InvalidDuration, InvalidSize
from nexlet_models.sizes import format_size, parse_size


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0), ("-0", 0), ("300ms", 0.3), ("5s", 5), ("1m30s", 90), ("1.5h", 5400), ("-1.5s", -1.5), ("+5s", 5),
        (".5s", 0.5), ("1.s", 1), ("1us", 1e-6), ("1µs", 1e-6), ("1μs", 1e-6), ("7ns", 7e-9),
        ("1h2m3.000000004s", 3723.000000004),
        ("2562047h47m16.854775807s", 9223372036.854775807),
    ],
)  # fmt: skip
def test_durations_as_go_reads_them(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("", "1m30s"),
        ("5", "5s or 5ms"), ("-5", "-5s"), ("1x", "1m30s"), ("s", "1m30s"), (".s", "1m30s"), ("1 s", "1m30s"),
        ("5S", "1m30s"), ("--5s", "1m30s"), ("1m-5s", "1m30s"), ("2562048h", "1m30s"), ("٣s", "1m30s"),
        ("1s" * 200, "1m30s"), ("1e3s", "1m30s"), ("5s\n", "1m30s"),
    ],
)  # fmt: skip
def test_durations_that_go_refuses(text: str, advice: str) -> None:
    with pytest.raises(InvalidDuration) as refused:
        parse_duration(text)
    assert advice in refused.value.advice
    assert len(str(refused.value)) < 200


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (12.150536467, "12.150536467s"),
        (0, "0s"), (5, "5s"), (90, "1m30s"), (0.3, "300ms"), (1.5e-6, "1.5µs"), (1e-9, "1ns"), (3600, "1h0m0s"),
        (17.645586435, "17.645586435s"), (0.879967403, "879.967403ms"), (-90, "-1m30s"),
    ],
)  # fmt: skip
def test_durations_as_go_prints_them(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@pytest.mark.parametrize("seconds", [math.inf, math.nan, 1e12])
def test_what_is_no_duration(seconds: float) -> None:
    with pytest.raises(InvalidDuration):
        format_duration(seconds)


@given(st.integers(min_value=-(2**50), max_value=2**50))
def test_durations_survive_to_the_nanosecond(nanoseconds: int) -> None:
    assert round(parse_duration(format_duration(nanoseconds / 1e9)) * 1e9) == nanoseconds


@given(st.text(alphabet="0123456789.hmsnuµ+-x ", max_size=20))
def test_any_text_is_a_duration_or_refused(text: str) -> None:
    try:
        seconds = parse_duration(text)
    except InvalidDuration:
        return
    assert math.isclose(parse_duration(format_duration(seconds)), seconds, abs_tol=1e-9)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0), ("0B", 0), ("512B", 512), ("64MiB", 64 << 20), ("1.5GiB", 3 << 29), ("900kB", 900_000), ("1KB", 1000),
        ("2TB", 2 * 10**12), ("1KiB", 1024),
    ],
)  # fmt: skip
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("", "64MiB"), ("64", "64MiB"), ("64mb", "write it as 64MB"), ("64M", "write it as 64MiB"), ("64Mi", "64MiB"),
        ("64mib", "write it as 64MiB"), ("-1MiB", "0 or more"), ("0.5B", "64MiB"), ("64 MiB", "64MiB"),
        ("3q", "units are"),
        ("99999999TiB", "64MiB"), ("1e3B", "64MiB"), ("٣B", "64MiB"), ("9" * 500, "64MiB"), ("1B\n", "64MiB"),
    ],
)  # fmt: skip
def test_sizes_refused(text: str, advice: str) -> None:
    with pytest.raises(InvalidSize) as refused:
        parse_size(text)
    assert advice in refused.value.advice
    assert len(str(refused.value)) < 200


@given(st.integers(min_value=0, max_value=2**63 - 1))
def test_sizes_survive(size: int) -> None:
    assert parse_size(format_size(size)) == size


def test_a_negative_size_is_not_written() -> None:
    with pytest.raises(InvalidSize):
        format_size(-1)
