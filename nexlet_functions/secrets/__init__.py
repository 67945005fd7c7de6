"""Where the secrets of functions come from, beside a folder of files: the nexlet's environment, and a sealed bucket.

`environment` and `bucket` are stores as `runner.secrets` has them, `several` asks one after the other, and `sealed` is
how a value is closed to the curve keys of nexlets. docs/secrets.md has what each of them is good for.
"""

from __future__ import annotations

from nexlet_functions.secrets.bucket import BucketSecrets
from nexlet_functions.secrets.environment import EnvironmentSecrets
from nexlet_functions.secrets.sealed import NotForUs, keys_of, seal, unseal
from nexlet_functions.secrets.several import SeveralSecrets

__all__ = [
    "BucketSecrets",
    "EnvironmentSecrets",
    "NotForUs",
    "SeveralSecrets",
    "keys_of",
    "seal",
    "unseal",
]
