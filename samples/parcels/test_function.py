"""What is booked, what is set aside, and what is tried again."""

from pathlib import Path

import pytest

from nexlet_functions.testing import load_function, sample_events

HERE = Path(__file__).parent
SCAN = {"parcel": "AB123456"}


@pytest.fixture(scope="module")
def parcels():
    with load_function(HERE) as function:
        yield function


@pytest.mark.parametrize("event", sample_events(HERE), ids=str)
def test_sample_events(parcels, event):
    assert parcels.invoke(event).differences(event) == []


def test_a_booking_is_named_after_its_message(parcels):
    result = parcels.invoke(json=SCAN, subject="parcels.south.scanned", sequence=17, attempt=2)
    (line,) = result.logs
    assert line.json()["booking"] == "PARCELS-17"


@pytest.mark.parametrize("scan", [{}, [], {"parcel": 7}, {"parcel": "ab123456"}, {"parcel": "AB1234567"}])
def test_what_makes_no_sense_is_refused_and_not_tried_again(parcels, scan):
    result = parcels.invoke(json=scan, subject="parcels.south.scanned")
    assert (result.outcome, result.code) == ("rejected_by_function", 422)


def test_a_depot_that_is_closed_is_a_fault_and_tried_again(parcels):
    result = parcels.invoke(json=SCAN, subject="parcels.north.scanned", attempt=2)
    assert (result.outcome, result.error) == ("error", "RuntimeError: the depot north is closed, attempt 2")
