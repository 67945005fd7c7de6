"""What is wrong with the sources of a function whose Nexfile is refused already, for `check` and `deploy` alike."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nexlet_functions.nexfile import FunctionRefused
    from nexlet_models.problems import Problem

__all__ = ["Modules", "problems_of_refused"]

Modules = Mapping[str, tuple[str, ...]]
"""What an operator permits functions to import, each module with the names it gives."""


def problems_of_refused(refused: FunctionRefused, modules: Modules) -> list[Problem]:
    """What the policy says of sources that could be read, of which nothing is run."""
    from nexlet_functions.functions.requests import inline_program, sound_part
    from nexlet_sandboxes.language import check

    part = sound_part(json.dumps(refused.request))
    program = inline_program(part) if part is not None else None
    if program is None:
        return []
    return list(check(replace(program, filename=refused.source_name or program.filename, modules=modules)))
