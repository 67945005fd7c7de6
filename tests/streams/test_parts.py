"""The small parts of stream triggers: acknowledgement subjects, dead letters' headers, hops."""

from __future__ import annotations

from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexlet_functions.functions.hops import hops_line, hops_of
from nexlet_functions.natsio.protocol import decode_headers
from nexlet_functions.streams.deliveries import Delivery, ack_parts, nak_after
from nexlet_functions.streams.letters import Sender, letter_block, read_letter
from nexlet_sandboxes.calls import Result
from nexlet_sandboxes.outcomes import Outcome
from nexlet_sandboxes.worker.event import Event

OLD = b"$JS.ACK.ORDERS.acme-greet.3.17.21.1700000000000000000.4"
NEW = b"$JS.ACK.hub.ACCHASH.ORDERS.acme-greet.3.17.21.1700000000000000000.4.x9"


class _Of:
    stream, consumer = "ORDERS", "acme-greet"


@pytest.mark.parametrize("reply", [OLD, NEW])
def test_an_acknowledgement_subject_in_both_forms(reply: bytes) -> None:
    key, attempt = ack_parts(reply)
    assert (key, attempt) == ((b"17", b"1700000000000000000"), 3)
    event = Event(b"orders.new", b"", b"", reply, 3, "p.", 1, ">")
    assert (event.stream, event.sequence, event.reply) == ("ORDERS", 17, "")


@pytest.mark.parametrize("reply", [b"", b"_INBOX.x", b"$JS.ACK.", b"$JS.ACK.a"])
def test_what_is_none(reply: bytes) -> None:
    event = Event(b"a", b"", b"", reply, 1, "p.", 1, "a")
    assert event.sequence == 0
    with pytest.raises((ValueError, IndexError)):
        ack_parts(reply)


def test_an_identity_is_the_messages_and_not_the_attempts() -> None:
    puller = cast(Any, _Of())
    first, second = (Delivery(puller, *_parts(reply)) for reply in (OLD, OLD.replace(b".3.", b".4.")))
    assert first.identity == second.identity == "ORDERS:acme-greet:17:1700000000000000000"
    assert (first.attempt, second.attempt, second.sequence) == (3, 4, 17)


def _parts(reply: bytes) -> tuple[tuple[bytes, bytes], bytes, int, int]:
    key, attempt = ack_parts(reply)
    return key, reply, attempt, 0


def test_a_pause_is_said_in_nanoseconds() -> None:
    assert nak_after(b"r", 1.5) == b'PUB r 26\r\n-NAK {"delay": 1500000000}\r\n'


values = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), min_size=1, max_size=20)


@given(st.dictionaries(st.from_regex(r"X-[A-Za-z]{1,8}", fullmatch=True), values, max_size=4), values, values)
def test_a_dead_letter_reads_as_it_was_written(own: dict[str, str], error: str, subject: str) -> None:
    lines = "".join(f"{name}: {value}\r\n" for name, value in own.items())
    block = f"NATS/1.0\r\nNats-Msg-Id: 1\r\nNex-Dlq-Reason: old\r\nNex-Dlq-History: before\r\n{lines}\r\n".encode()
    result = Result(Outcome.ERROR, 500, error=error)
    result.traceback = "Traceback\nValueError"
    written = letter_block(
        Sender("acme", "greet", "W1"), result,
        subject=subject.encode(), headers=block, attempt=3, invocation_id="p.1", message_id="id",
    )  # fmt: skip
    letter = read_letter(written)
    assert letter.headers == decode_headers(f"NATS/1.0\r\n{lines}\r\n".encode())
    assert (letter.get("reason"), letter.get("attempt"), letter.get("invocation")) == ("error", "3", "p.1")
    assert letter.get("error") == error
    assert letter.get("subject") == subject
    assert letter.history == ["before"]
    assert decode_headers(written)["Nats-Msg-Id"] == "id"
    assert written.count(b"Nex-Dlq-Reason") == 1


@given(st.integers(0, 10**8))
def test_hops_count_up(hops: int) -> None:
    block = b"NATS/1.0\r\nA: 1\r\nNex-Hops: %d\r\n\r\n" % hops
    assert hops_of(block) == hops
    assert hops_of(b"NATS/1.0\r\n" + hops_line(block) + b"\r\n\r\n") == hops + 1
    assert hops_of(b"") == hops_of(b"NATS/1.0\r\nNex-Hops: many\r\n\r\n") == 0
