"""The buckets that an operator makes once, made for a development server.

On a real server nothing makes them behind its operator's back.
"""

from __future__ import annotations

import nats
import nats.js.errors
from nats.aio.client import Client
from nats.js.api import KeyValueConfig

from nexlet_models.start_request import GrantsRequest

__all__ = ["make_buckets", "make_granted"]


async def make_buckets(url: str, *buckets: str) -> None:
    """Make key-value buckets; one that is there with the same settings stays as it is."""
    client = await nats.connect(url)
    try:
        for bucket in buckets:
            await client.jetstream().create_key_value(KeyValueConfig(bucket=bucket))
    finally:
        await client.close()


async def make_granted(client: Client, grants: GrantsRequest) -> None:
    """Make the buckets and object stores that a function was granted, and that are not there."""
    stream = client.jetstream()
    for bucket in grants.kv:
        try:
            await stream.key_value(bucket)
        except nats.js.errors.BucketNotFoundError:
            await stream.create_key_value(KeyValueConfig(bucket=bucket, direct=True))
    for bucket in grants.objects:
        try:
            await stream.object_store(bucket)
        except nats.js.errors.BucketNotFoundError:
            await stream.create_object_store(bucket)
