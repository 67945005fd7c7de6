"""What this package raises: one root, a stable code for programs, the next step in the message."""

from __future__ import annotations

__all__ = [
    "InvalidDuration",
    "InvalidSchedule",
    "InvalidSize",
    "InvalidTimeZone",
    "InvalidToken",
    "MalformedMessage",
    "ModelError",
]


class ModelError(ValueError):
    """The root of what this package raises. A `ValueError`: what came in is not what it should be."""

    code = "model"


class MalformedMessage(ModelError):
    """Bytes that are not the message they should be. The text names the fields, never their values.

    Attributes:
        message: the name of the message, such as "RegisterAgentRequest".
        problems: one line a field, such as "field run_request: Field required".
    """

    code = "malformed-message"

    def __init__(self, message: str, problems: tuple[str, ...]) -> None:
        self.message = message
        self.problems = problems
        super().__init__(f"not a {message}: {'; '.join(problems)}")


class InvalidToken(ModelError):
    """A name or id that cannot be one token of a subject.

    Attributes:
        token: as it was given.
        reason: why not, such as "has a '.' in it".
    """

    code = "invalid-token"

    def __init__(self, token: str, reason: str) -> None:
        self.token = token
        self.reason = reason
        super().__init__(f"{token!r} cannot be a token of a subject: it {reason}")


class _InvalidText(ModelError):
    """A text that does not mean what it should.

    Attributes:
        reason: what is wrong with it.
        advice: what to write instead.
    """

    def __init__(self, reason: str, advice: str) -> None:
        self.reason = reason
        self.advice = advice
        super().__init__(f"{reason}; {advice}")


class InvalidDuration(_InvalidText):
    """A text that is no duration as Go writes them."""

    code = "bad-duration"


class InvalidSize(_InvalidText):
    """A text that is no size with a unit."""

    code = "bad-size"


class InvalidSchedule(_InvalidText):
    """A text that is no time table as cron writes them, or one that is never due."""

    code = "bad-schedule"


class InvalidTimeZone(_InvalidText):
    """A text that names no time zone that this machine knows."""

    code = "bad-timezone"
