"""The table put to use: names, proxies, and getting everything into memory before a worker is forked.

Proxies that need no host are made once in a process and shared by all that is forked from it. Those with a part that
does (`time.sleep`, `logging`) are made once for a host; those of modules that an operator permits, once in a process.
"""

from __future__ import annotations

import datetime
import functools
import sys
import time
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING

from nexlet_sandboxes.language.modules.auditing import operator_proxy
from nexlet_sandboxes.language.modules.proxies import ModuleProxy, make_proxy
from nexlet_sandboxes.language.modules.safe import randomness, zones
from nexlet_sandboxes.language.modules.table import ALLOWED
from nexlet_sandboxes.outcomes import ModulesRefused

if TYPE_CHECKING:
    from nexlet_sandboxes.language.host import Host

__all__ = ["listing", "missing", "names", "permitted", "preload", "proxy", "reseed"]

_shared: dict[str, ModuleProxy] = {}
_hosted: list[tuple[Host, dict[str, ModuleProxy]]] = []


def names(name: str) -> frozenset[str] | None:
    """What `from name import ...` may name; None where the module is not allowed at all."""
    row = ALLOWED.get(name)
    return None if row is None else frozenset(given for given in row.all_names() if row.has(given))


def missing(name: str, wanted: str) -> str:
    """What to write instead of a name that an allowed module does not give; "" where there is no better advice."""
    row = ALLOWED.get(name)
    return "" if row is None else row.missing.get(wanted, "")


def listing() -> dict[str, list[str]]:
    """Every allowed module with its names, both sorted: what the command `modules` prints."""
    return {name: sorted(names(name) or ()) for name in sorted(ALLOWED)}


def proxy(name: str, host: Host) -> ModuleProxy | None:
    """The module of that name as a function sees it, always the same object; None where it is not allowed."""
    row = ALLOWED.get(name)
    if row is None:
        return None
    if row.hosted is None:
        kept = _shared
    else:
        # A process serves one host; where another one comes (tests), the first one's modules are let go.
        if not _hosted or _hosted[0][0] is not host:
            _hosted[:] = [(host, {})]
        kept = _hosted[0][1]
    found = kept.get(name)
    if found is None:
        values = row.plain_values(name)
        if row.ours is not None:
            values.update(row.ours())
        if row.hosted is not None:
            values.update(row.hosted(host))
        for child in row.children:
            values[child] = proxy(f"{name}.{child}", host)
        found = kept[name] = make_proxy(name, values, row.missing)
    return found


@functools.cache
def permitted(name: str, names: tuple[str, ...]) -> ModuleProxy:
    """The module of that name, which is not in the table, with the names that an operator permits.

    Raises:
        ImportError, ValueError: see `operator_proxy`.
    """
    return operator_proxy(name, names)


def preload(extra: Mapping[str, Sequence[str]] = MappingProxyType({})) -> None:
    """Makes ready for workers to be forked: no module needs a file then, and each worker has its own random numbers.

    Args:
        extra: what an operator permits beside the table: module to its names.

    Raises:
        ModulesRefused: with every module of these that cannot be given, and why.
    """
    for name, row in ALLOWED.items():
        if row.hosted is None:
            proxy(name, _NOBODY)
        else:
            row.plain_values(name)
    zones.load()
    # Both read or import something the first time they are called, and then never again.
    time.localtime()
    datetime.datetime.strptime("2000", "%Y").replace(tzinfo=datetime.UTC)
    randomness.reseed_after_fork()
    _preload_permitted(extra)


def _preload_permitted(extra: Mapping[str, Sequence[str]]) -> None:
    refused: dict[str, str] = {}
    for name, given in extra.items():
        if name in ALLOWED:
            refused[name] = "functions may import it anyway, with the names that are in the list; take it out"
            continue
        try:
            permitted(name, tuple(given))
        except ModuleNotFoundError as error:
            refused[name] = f"{error}; install it into the nexlet's own environment, {sys.prefix}"
        except (Exception, SystemExit) as error:  # noqa: BLE001  # importing runs whatever the module's authors wrote
            refused[name] = f"{type(error).__name__}: {error}"
    if refused:
        raise ModulesRefused(refused)


def reseed() -> None:
    """Gives this process random numbers of its own. After `os.fork` this happens by itself, once `preload` has run."""
    randomness.reseed()


class _Nobody:
    """The host of modules that need none."""

    def __init__(self) -> None:
        self.builtins: Mapping[str, object] = {}
        self.modules: Mapping[str, Mapping[str, object]] = {}
        self.memory_exceeded = False

    def write(self, stream: str, text: str) -> None:
        raise AssertionError("a module without a host part wrote")

    def log(self, level: str, message: str, fields: dict[str, object]) -> None:
        raise AssertionError("a module without a host part logged")

    def remaining(self) -> float:
        raise AssertionError("a module without a host part asked for the time")


_NOBODY = _Nobody()
