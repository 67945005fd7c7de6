"""What `import` gives to a function: proxies of some modules of the standard library, name by name.

`table` has the list, `safe` our versions of what reaches too far as it is, `proxies` the objects that authors see, and
`auditing` tells an operator what a module of their own choice would lead to.
"""

from __future__ import annotations

from nexlet_sandboxes.language.modules.auditing import audit, operator_proxy
from nexlet_sandboxes.language.modules.offer import listing, missing, names, permitted, preload, proxy, reseed
from nexlet_sandboxes.language.modules.proxies import ModuleProxy, Sealed, make_proxy
from nexlet_sandboxes.language.modules.table import ALLOWED, Module

__all__ = [
    "ALLOWED",
    "Module",
    "ModuleProxy",
    "Sealed",
    "audit",
    "listing",
    "make_proxy",
    "missing",
    "names",
    "operator_proxy",
    "permitted",
    "preload",
    "proxy",
    "reseed",
]
