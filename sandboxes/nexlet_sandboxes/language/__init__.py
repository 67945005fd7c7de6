"""The language layer: what an author's Python may say, and what it is given to say it with.

Built on RestrictedPython with a policy of its own. It is a policy, never the only wall: the worker's process is locked
from outside as well.
"""

from nexlet_sandboxes.language.guards import set_aside
from nexlet_sandboxes.language.host import Host
from nexlet_sandboxes.language.loading import Loaded, check, load, preload, translate
from nexlet_sandboxes.language.modules import listing as module_listing

__all__ = ["Host", "Loaded", "check", "load", "module_listing", "preload", "set_aside", "translate"]
