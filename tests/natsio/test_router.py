"""The bytes of a server, however they are cut into reads: ours to their sinks, all else back, whole and in order."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from nexlet_functions.natsio.complaints import TOO_MANY_SUBSCRIPTIONS
from nexlet_functions.natsio.router import Router


@dataclass
class Keeping:
    """A batch sink that keeps what it is given, and after how many messages a batch ended."""

    taken: list[tuple[bytes, bytes, bytes, bytes]] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)

    def take(self, subject: bytes, reply: bytes, payload: bytes, headers: bytes) -> None:
        self.taken.append((subject, reply, payload, headers))

    def batch_end(self) -> None:
        self.ends.append(len(self.taken))


class Raising(Keeping):
    def take(self, subject: bytes, reply: bytes, payload: bytes, headers: bytes) -> None:
        raise LookupError(subject)

    def batch_end(self) -> None:
        raise LookupError("end")


class Stage:
    """A router with two known subscriptions, 1 and 2, and what came of what it read."""

    def __init__(self) -> None:
        self.stats = {"in_msgs": 0, "in_bytes": 0}
        self.failures: list[BaseException] = []
        self.complaints: list[str] = []
        self.router = Router(self.stats, failed=self.failures.append, complained=self.complaints.append)
        self.sinks = {1: Keeping(), 2: Keeping()}
        for sid, sink in self.sinks.items():
            self.router.add(sid, sink)

    def read(self, *pieces: bytes) -> list[bytes]:
        """Each piece is a batch of its own."""
        others = []
        for piece in pieces:
            others += self.router.walk(piece)
            self.router.end()
        return others


def message(sid: int, subject: bytes, reply: bytes, payload: bytes, block: bytes) -> bytes:
    """A message as a server writes it; with headers where `block` is not empty."""
    words = [subject, b"%d" % sid, *([reply] if reply else [])]
    if block:
        line = b"HMSG %b %d %d" % (b" ".join(words), len(block), len(block) + len(payload))
    else:
        line = b"MSG %b %d" % (b" ".join(words), len(payload))
    return b"%b\r\n%b%b\r\n" % (line, block, payload)


_words = st.sampled_from([b"a", b"orders.new", b"x.\xff"])
_messages = st.tuples(
    st.sampled_from([1, 2, 3]),
    _words,
    st.sampled_from([b"", b"_INBOX.1"]),
    st.binary(max_size=40) | st.just(b"MSG a 1 3\r\n") | st.just(b"\r\n" * 5),
    st.sampled_from([b"", b"NATS/1.0\r\na: b\r\n\r\n"]),
)
_lines = st.sampled_from([b"PING\r\n", b"PONG\r\n", b"+OK\r\n", b'INFO {"a":1}\r\n', b"-ERR 'something'\r\n"])


@given(st.lists(_messages | _lines, max_size=12), st.lists(st.integers(1, 60), min_size=1, max_size=40))
def test_however_it_is_cut(frames: list[tuple[int, bytes, bytes, bytes, bytes] | bytes], cuts: list[int]) -> None:
    stage = Stage()
    wire = [one if isinstance(one, bytes) else message(*one) for one in frames]
    data, pieces = b"".join(wire), list[bytes]()
    while data:
        size = cuts[len(pieces) % len(cuts)]
        pieces.append(data[:size])
        data = data[size:]
    others = stage.read(*pieces)
    foreign = [said for one, said in zip(frames, wire, strict=True) if isinstance(one, bytes) or one[0] == 3]
    assert others == foreign
    ours = [one for one in frames if not isinstance(one, bytes) and one[0] != 3]
    for sid, sink in stage.sinks.items():
        assert sink.taken == [one[1:] for one in ours if one[0] == sid]
        assert (sink.ends[-1] if sink.ends else 0) == len(sink.taken), "nothing waits for the end of its batch"
    assert stage.stats == {"in_msgs": len(ours), "in_bytes": sum(len(one[3]) + len(one[4]) for one in ours)}
    assert stage.router.missing == 0
    assert not stage.failures


def test_a_batch_ends_once_for_each_sink_of_a_read() -> None:
    stage = Stage()
    stage.read(b"".join(message(sid, b"a", b"", b"x", b"") for sid in (1, 2, 1, 1, 2)))
    assert (stage.sinks[1].ends, stage.sinks[2].ends) == ([3], [2])


def test_a_batch_of_several_pieces_ends_once_for_each_sink() -> None:
    stage = Stage()
    for sid in (1, 2, 1, 1, 2):
        assert stage.router.walk(message(sid, b"a", b"", b"x", b"")) == []
    assert stage.sinks[1].ends == stage.sinks[2].ends == []
    stage.router.end()
    stage.router.end()  # of nothing
    assert (stage.sinks[1].ends, stage.sinks[2].ends) == ([3], [2])


def test_what_a_large_message_lacks_is_known() -> None:
    stage = Stage()
    whole = message(1, b"a", b"", b"x" * 100_000, b"")
    stage.read(whole[:5])
    assert stage.router.missing == 0, "its line is not whole yet"
    stage.read(whole[5:30_000])
    assert stage.router.missing == len(whole) - 30_000
    stage.read(whole[30_000:])
    assert stage.router.missing == 0
    assert stage.sinks[1].taken == [(b"a", b"", b"x" * 100_000, b"")]


def test_a_sink_that_raises_stops_nobody() -> None:
    stage = Stage()
    stage.router.add(1, Raising())
    others = stage.read(message(1, b"a", b"", b"", b"") + message(2, b"b", b"", b"", b"") + b"PING\r\n")
    assert others == [b"PING\r\n"]
    assert len(stage.sinks[2].taken) == 1
    assert [str(one) for one in stage.failures] == ["b'a'", "end"]


def test_what_is_malformed_is_given_back_with_all_that_follows() -> None:
    stage = Stage()
    assert stage.read(b"PING\r\nMSG a 1 many\r\nPONG\r\n") == [b"PING\r\n", b"MSG a 1 many\r\nPONG\r\n"]
    assert stage.read(message(1, b"a", b"", b"", b"")) == []
    assert len(stage.sinks[1].taken) == 1


def test_a_server_that_takes_no_more_subscriptions_goes_on() -> None:
    stage = Stage()
    assert stage.read(b"-ERR 'Maximum Subscriptions Exceeded'\r\nPING\r\n") == [b"PING\r\n"]
    assert stage.complaints == [TOO_MANY_SUBSCRIPTIONS]


def test_a_subscription_that_was_removed_is_not_ours() -> None:
    stage = Stage()
    stage.router.remove(1)
    late = message(1, b"a", b"", b"", b"")
    assert stage.read(late, b"MSG a") == [late]
    stage.router.reset()
    assert stage.read(b"PING\r\n") == [b"PING\r\n"], "a new connection begins at a line"
    stage.router.clear()
    late = message(2, b"a", b"", b"", b"")
    assert stage.read(late) == [late]
