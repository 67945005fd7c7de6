"""The functions that are deployed here, by id; which of them bear the same name, and what they were granted together.

Two functions of one name in a namespace are in one queue group and share its messages. That is what a clone is for, and
what a replacement is for a moment. Otherwise somebody deployed over what runs and did not notice, so that it is told:
`Register.namesakes` are the others, `Function.metadata` and the agent's log have them.
"""

from __future__ import annotations

from collections import UserDict
from typing import TYPE_CHECKING

from nexlet_functions.functions.permissions import Usage

if TYPE_CHECKING:
    from nexlet_functions.functions.function import Function

__all__ = ["Register"]


class Register(UserDict[str, "Function"]):
    """Functions by workload id."""

    def __init__(self) -> None:
        """Nothing is deployed."""
        self._named: dict[tuple[str, str], dict[str, Function]] = {}
        self._granted: dict[str, tuple[int, int, int]] = {}
        super().__init__()

    def __setitem__(self, workload_id: str, function: Function) -> None:
        if workload_id in self:
            del self[workload_id]
        super().__setitem__(workload_id, function)
        self._named.setdefault((function.namespace, function.name), {})[workload_id] = function
        self._grant(function, 1)

    def __delitem__(self, workload_id: str) -> None:
        function = self[workload_id]
        super().__delitem__(workload_id)
        name = (function.namespace, function.name)
        del self._named[name][workload_id]
        if not self._named[name]:
            del self._named[name]
        self._grant(function, -1)

    def _grant(self, function: Function, sign: int) -> None:
        functions, workers, memory = self._granted.get(function.namespace, (0, 0, 0))
        most = function.limits.max_workers
        granted = (functions + sign, workers + sign * most, memory + sign * most * function.limits.memory)
        self._granted[function.namespace] = granted
        if not granted[0]:
            del self._granted[function.namespace]

    def usage(self, namespace: str) -> Usage:
        """What the functions of a namespace were granted. Kept, not added up: each start asks."""
        functions, workers, memory = self._granted.get(namespace, (0, 0, 0))
        return Usage(functions=functions, workers=workers, memory=memory, everywhere=len(self))

    def namesakes(self, function: Function) -> list[Function]:
        """The others of its name in its namespace, in the order in which they came."""
        named = self._named.get((function.namespace, function.name), {})
        return [one for one in named.values() if one is not function]
