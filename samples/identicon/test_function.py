"""The picture, read back by nothing but the format's own rules."""

import struct
import zlib

import pytest


def read_png(data):
    """Width, height and rows of an uncompressed-filter RGB PNG; every checksum holds."""
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    at, parts = 8, {}
    while at < len(data):
        (length,) = struct.unpack_from(">I", data, at)
        kind, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        assert struct.unpack_from(">I", data, at + 8 + length) == (zlib.crc32(kind + body),)
        parts[kind] = body
        at += 12 + length
    width, height, depth, colour = struct.unpack_from(">IIBB", parts[b"IHDR"])
    assert (depth, colour, list(parts)) == (8, 2, [b"IHDR", b"IDAT", b"IEND"])
    pixels = zlib.decompress(parts[b"IDAT"])
    step = 1 + 3 * width
    assert len(pixels) == height * step
    return width, height, [pixels[line * step + 1 : (line + 1) * step] for line in range(height)]


def mirrored(row):
    return b"".join(reversed([row[at : at + 3] for at in range(0, len(row), 3)]))


def test_sample_events(function, sample_event):
    assert function.invoke(sample_event).differences(sample_event) == []


def test_it_is_a_picture_and_its_own_mirror(function):
    result = function.invoke(data=b"ada@example.com")
    assert result.headers["Content-Type"] == "image/png"
    width, height, rows = read_png(result.data)
    assert (width, height) == (60, 60)
    assert all(row == mirrored(row) for row in rows)
    assert len({row[at : at + 3] for row in rows for at in range(0, len(row), 3)}) == 2


def test_each_name_has_its_own_and_always_the_same(function):
    first, again, another = (function.invoke(data=name) for name in (b"ada", b"ada", b"grace"))
    assert first.data == again.data
    assert first.headers["ETag"] == again.headers["ETag"] != another.headers["ETag"]
    assert first.data != another.data


def test_any_bytes_will_do(function):
    assert function.invoke(data=bytes(range(256))).ok


@pytest.mark.nexfn(environment={"PIXELS": "10"})
def test_the_size_is_a_setting(function):
    assert read_png(function.invoke(data=b"ada").data)[:2] == (10, 10)
