"""The frame protocol: whatever way the bytes are cut, the frames come out; what is no frame is refused."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexlet_sandboxes.frames import HEADER, FrameError, Kind, Splitter, frame

Frames = list[tuple[int, int, int, int, bytes]]

frames = st.lists(
    st.tuples(
        st.sampled_from([int(kind) for kind in Kind]),
        st.integers(0, 255),
        st.integers(0, 65535),
        st.integers(0, 2**64 - 1),
        st.binary(max_size=300),
    ),
    max_size=12,
)


def cut(data: bytes, at: list[int]) -> list[bytes]:
    edges = [0, *sorted({edge % (len(data) + 1) for edge in at}), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(edges) if end > start]


@given(frames, st.lists(st.integers(0, 10_000), max_size=8))
def test_frames_come_out_however_they_are_cut(given_frames: Frames, at: list[int]) -> None:
    data = b"".join(
        frame(Kind(kind), body, flag=flag, aux=aux, call=call) for kind, flag, aux, call, body in given_frames
    )
    splitter = Splitter()
    got: Frames = []
    for piece in cut(data, at):
        got += [(k, f, a, c, buffer[s:e]) for k, f, a, c, buffer, s, e in splitter.feed(piece)]
    assert got == given_frames
    assert splitter.buffered == 0


@given(frames, st.integers(0, 10_000))
def test_what_is_incomplete_is_kept_and_nothing_more(given_frames: Frames, missing: int) -> None:
    data = b"".join(
        frame(Kind(kind), body, flag=flag, aux=aux, call=call) for kind, flag, aux, call, body in given_frames
    )
    cut_off = data[: len(data) - missing % (len(data) + 1)]
    splitter = Splitter()
    consumed = sum(HEADER.size + end - start for *_, start, end in splitter.feed(cut_off))
    assert splitter.buffered == len(cut_off) - consumed


def test_a_longer_body_than_allowed_is_refused_before_it_is_kept() -> None:
    splitter = Splitter(100)
    with pytest.raises(FrameError, match="101 bytes"):
        list(splitter.feed(HEADER.pack(101, Kind.RESULT, 0, 0, 1)))
    assert splitter.buffered == 0


@given(st.binary(max_size=2000), st.lists(st.integers(0, 2000), max_size=5))
def test_any_bytes_are_frames_or_refused_and_never_more_is_kept_than_came(data: bytes, at: list[int]) -> None:
    splitter = Splitter(500)
    for piece in cut(data, at):
        try:
            for _ in splitter.feed(piece):
                pass
        except FrameError:
            return
        assert splitter.buffered <= 500 + HEADER.size


def test_a_large_body_in_many_pieces_costs_what_it_weighs() -> None:
    body = bytes(8 * 1024 * 1024)
    data = frame(Kind.RESULT, body, call=7)
    splitter = Splitter()
    got = [end - start for at in range(0, len(data), 4096) for *_, start, end in splitter.feed(data[at : at + 4096])]
    assert got == [len(body)]
