"""Says of a test, or of one case of it, which row of the failure table (`docs/failures.md`) it holds.

`tests/faults/test_table.py` reads these names, so that no row is without a test and no test without a row.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, overload

import pytest

__all__ = ["row"]

Test = TypeVar("Test", bound=Callable[..., Any])


@overload
def row(name: str) -> Callable[[Test], Test]: ...


@overload
def row(name: str, case: object, what: str = "") -> Any: ...


def row(name: str, case: object = None, what: str = "") -> Any:
    """A decorator for a test; with a `case`, a parameter set that is named after its row.

    Args:
        name: as the table's first column has it.
        case: the parameter.
        what: which one it is, where a row has several.
    """
    if case is None:
        return lambda test: test
    return pytest.param(case, id=f"{name}: {what}" if what else name)
