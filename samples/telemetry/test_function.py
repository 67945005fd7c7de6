"""Frames as they come off the radio, whole and broken."""

import binascii
import struct

import pytest


def frame(*, version=1, flags=0, sensor=17, seconds=0, hundredths=2150):
    body = struct.pack(">BBHIh", version, flags, sensor, seconds, hundredths)
    return body + struct.pack(">H", binascii.crc_hqx(body, 0xFFFF))


def test_sample_events(function, sample_event):
    assert function.invoke(sample_event).differences(sample_event) == []


def test_a_reading_is_an_answer_and_a_figure(function):
    result = function.invoke(data=frame(), subject="frames.barn")
    assert result.json() == {
        "site": "barn", "sensor": 17, "at": "1970-01-01T00:00:00+00:00", "celsius": 21.5, "battery_low": False,
    }  # fmt: skip
    assert result.metrics == (
        {"name": "celsius", "kind": "gauge", "value": 21.5, "labels": {"site": "barn", "sensor": "17"}},
    )


@pytest.mark.parametrize("length", [0, 11, 13])
def test_a_frame_of_another_length_is_refused(function, length):
    result = function.invoke(data=(frame() + b"x")[:length], subject="frames.barn")
    assert (result.code, result.error) == (400, f"a frame is 12 bytes, this one has {length}")


@pytest.mark.parametrize("bit", range(0, 96, 5))
def test_any_bit_that_was_turned_over_is_noticed(function, bit):
    broken = bytearray(frame())
    broken[bit // 8] ^= 1 << bit % 8
    result = function.invoke(data=bytes(broken), subject="frames.barn")
    assert (result.code, result.error[:16]) == (400, "the checksum is ")


def test_another_version_is_refused_by_name(function):
    assert function.invoke(data=frame(version=2), subject="frames.barn").code == 422
