"""A zygote whose workers run plain Python once they are locked: the language layer, lost.

Executed in the place of `nexlet_sandboxes.zygote_process`, which it is in everything but one step: between loading and
answering nobody looks at the author's source. Locks, sockets, frames and the loop are those of production, so what a
row of the corpus meets here is what code would meet that had beaten the language layer.

    python -I tests/support/corpus_worker.py MODULE ...

The modules are imported before the first fork: a locked worker imports nothing.
"""

from __future__ import annotations

import encodings.idna  # noqa: F401  # the codec of host names, which sockets look up at their first use
import importlib
import sys
from typing import Any

import orjson

from nexlet_sandboxes import zygote_process
from nexlet_sandboxes.worker.loop import Worker

ATTACK = b"attack"
"""The payload of an attack begins with this; a forged answer for somebody else's invocation follows."""


class Fallen:
    """What a worker has loaded: a source that runs as it is, when it is told to attack."""

    def __init__(self, source: str, control: int) -> None:
        self._source = source
        self._control = control

    def handler(self, event: Any, context: Any) -> object:
        """Run the source, and say what came of it; every other payload comes back as it is."""
        if not event.data.startswith(ATTACK):
            return event.data
        names = {
            "__name__": "attack",
            "CONTROL_FD": self._control,
            "ALLOWED_FDS": {0, 1, 2, self._control},
            "WAS_UNPRIV": WAS_UNPRIV,
            "FORGED_REPLY_FOR_OTHER_ID": event.data.removeprefix(ATTACK),
        }
        try:
            exec(compile(self._source, "attack.py", "exec"), names)
        except MemoryError:
            raise  # the loop has its own end for it
        except BaseException as error:
            return {
                "raised": [kind.__name__ for kind in type(error).__mro__],
                "errno": getattr(error, "errno", None),
                "text": str(error)[:500],
            }
        return {"raised": None}

    def summary(self, error: BaseException) -> str:
        """What the loop asks of a loaded program when its handler raised."""
        return f"{type(error).__name__}: {error}"[:500]

    explain = summary


class FallenWorker(Worker):
    """A worker without a language layer."""

    def _load(self, said: dict[str, Any], compiled: bytes) -> Any:
        harmless = orjson.loads(orjson.dumps(said | {"source": HARMLESS, "handler": "handler"}))
        loaded = super()._load(harmless, compiled)
        if loaded is None:
            return None
        _, context, program = loaded
        return Fallen(said["source"], self.sock.fileno()), context, program


HARMLESS = "def handler(event, context):\n    return None\n"
WAS_UNPRIV = False


def main(modules: list[str]) -> None:
    """Import what the attacks import, then be the zygote."""
    global WAS_UNPRIV
    import os

    WAS_UNPRIV = os.geteuid() != 0
    for module in modules:
        importlib.import_module(module)
    vars(zygote_process)["Worker"] = FallenWorker
    zygote_process.main()


if __name__ == "__main__":
    main(sys.argv[1:])
