"""Live invocations kept as sample events, for `nexfn dev --record` and `nexfn replay`.

Nothing is recorded unless somebody asks for it, and then what is secret is masked before it reaches the disk.

- `Masks`: what is not to be kept, and what stands in its place.
- `Recorder`: takes invocations as they end, and writes them one by one, within bounds.
"""

from __future__ import annotations

from nexlet_functions.recording.masks import Masks
from nexlet_functions.recording.recorder import Invoked, Recorder

__all__ = ["Invoked", "Masks", "Recorder"]
