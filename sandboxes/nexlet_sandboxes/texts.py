"""An author's text made Python's own, before trusted code works with it.

A class of the author's may derive from `str` and answer every method as it likes: `encode`, `join`, `lower`, even `+`.
Trusted code that called those would do what the author says with what the author gives, past whatever it checked. So
where a text crosses over (a printed value, a header, a rejection, the name of a field), the text is taken and the
object is left behind.
"""

from __future__ import annotations

__all__ = ["plain_int", "text_of"]


def text_of(value: object) -> str:
    """`str(value)`, exactly a `str`: `__str__` of an author's class may return a text of a class of its own."""
    text = value if isinstance(value, str) and type(value).__str__ is str.__str__ else str(value)
    return text if type(text) is str else str.__str__(text)


def plain_int(value: int) -> int:
    """The number that an `int` of whatever class holds, exactly an `int`: members of an `IntEnum` are such."""
    return int.__int__(value)
