"""The buckets that an operator makes once, made for a development server.

On a real server nothing makes them behind its operator's back.
"""

from __future__ import annotations

import nats
from nats.js.api import KeyValueConfig

__all__ = ["make_buckets"]


async def make_buckets(url: str, *buckets: str) -> None:
    """Make key-value buckets; one that is there with the same settings stays as it is."""
    client = await nats.connect(url)
    try:
        for bucket in buckets:
            await client.jetstream().create_key_value(KeyValueConfig(bucket=bucket))
    finally:
        await client.close()
