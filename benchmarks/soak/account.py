"""The oracle: what became of every request, which of it needs an explanation, and whether there is one.

A request ends as one of these; the sum of all of them is what was sent:

    answered        by the function, with its code (also `Reject`, errors, 504, 507: they are answers)
    refused         429, or 503 of a function that did not run it
    gave up         the caller chose not to wait any longer
    no responders   the server says that nobody listens
    lost            no answer, though it is overdue

What a request of its kind gets when all goes well, and a refusal, explain themselves. Everything else has to fall into
the time of a fault that explains it: a `Window` says from when to when it lasted, healing included, which functions it
concerned, and what it may cause. What no window explains makes the account not balance.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from benchmarks.soak.functions import KINDS, LONGEST

__all__ = ["LOST", "NO_RESPONDERS", "SLACK", "UNDER_WAY", "Account", "Oddity", "Window"]

LOST, NO_RESPONDERS = "lost", "no responders"

SLACK = 0.3
"""Seconds around a window in which its effects may still be seen."""

UNDER_WAY = 1.5
"""Seconds within which a request is answered when nothing is broken, on a machine that has other things to do, too."""

QUEUED = frozenset(kind.name for kind in KINDS if kind.rate)
"""Kinds whose requests may wait for a worker as long as their queue lets them."""


@dataclass(frozen=True, slots=True)
class Oddity:
    """One request that ended otherwise than by the answer of its kind.

    Attributes:
        what: `lost`, `no responders`, or the code.
        kind: of the request.
        sent, ended: seconds on the soak's clock.
    """

    what: str
    kind: str
    sent: float
    ended: float


@dataclass(slots=True)
class Window:
    """The time of one fault.

    Attributes:
        fault: its name.
        causes: what it may cause.
        kinds: whose requests; empty for all.
        begun, ended: seconds on the soak's clock; `ended` is when everybody answered again.
    """

    fault: str
    causes: frozenset[str]
    kinds: frozenset[str]
    begun: float
    ended: float = float("inf")

    def explains(self, oddity: Oddity) -> bool:
        """Whether `oddity` was under way in this time, and is of a sort that this fault may cause."""
        end = oddity.ended
        if oddity.what == LOST:
            # It was lost while it was under way, which is not as long as its caller waited.
            end = oddity.sent + (LONGEST if oddity.kind in QUEUED else UNDER_WAY)
        return (
            oddity.what in self.causes
            and (not self.kinds or oddity.kind in self.kinds)
            and oddity.sent <= self.ended + SLACK
            and end >= self.begun - SLACK
        )


@dataclass(slots=True)
class Account:
    """What became of everything.

    Attributes:
        sent: requests.
        results: requests by kind and result; the code stands for `answered`.
        odd: those that need an explanation.
        wrong: what nothing explains: answers that are not of their question, second answers, second runs, and what the
            end is not as the beginning.
        late: answers that came after their caller had given up, or after they were overdue.
    """

    sent: int = 0
    results: Counter[tuple[str, str]] = field(default_factory=Counter)
    odd: list[Oddity] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    late: int = 0

    def ended(self, kind: str, result: str) -> None:
        """One request has ended."""
        self.results[kind, result] += 1

    def by_result(self) -> dict[str, int]:
        """Requests by result, all kinds together."""
        counts: Counter[str] = Counter()
        for (_, result), count in self.results.items():
            counts[result] += count
        return dict(sorted(counts.items()))

    def attribute(self, windows: Sequence[Window]) -> Counter[tuple[str, str]]:
        """Oddities by what they are and the fault that explains them; the fault is "" where none does."""
        return Counter((oddity.what, _fault(oddity, windows)) for oddity in self.odd)

    def problems(self, windows: Sequence[Window]) -> list[str]:
        """Why it does not balance, a line each; none when it does."""
        found = list(self.wrong)
        accounted = sum(self.results.values())
        if accounted != self.sent:
            found.append(f"{self.sent} requests were sent, and {accounted} accounted for")
        for oddity in self.odd:
            if not _fault(oddity, windows):
                found.append(
                    f"{oddity.what}: a request to {oddity.kind!r} at {oddity.sent:.3f} s, ended {oddity.ended:.3f} s"
                )
        return found


def _fault(oddity: Oddity, windows: Sequence[Window]) -> str:
    # The latest of those that would do: the nearest to it.
    return next((window.fault for window in reversed(windows) if window.explains(oddity)), "")
