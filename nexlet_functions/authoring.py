"""What a function may import of this package: the types of its two arguments, and of its answers.

    from nexlet_functions.authoring import Context, Event, Reject, Reply

Inside a worker the import costs nothing and gives these four names, of which `Reply` and `Reject` are there without it
as well. Outside, an editor and a type checker find them here.
"""

from __future__ import annotations

from nexlet_sandboxes.worker.context import Context
from nexlet_sandboxes.worker.event import Event, Reject, Reply

__all__ = ["Context", "Event", "Reject", "Reply"]
