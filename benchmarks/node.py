"""The stand-in node, alone in a process. `python -m benchmarks.node URL` prints its id."""

from __future__ import annotations

import asyncio
import logging
import sys

import structlog

from nexlet_functions.devnode.node import DevNode


async def serve(url: str) -> None:
    """Serve for ever."""
    async with await DevNode.start(url) as node:
        print(node.node_id, flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    structlog.configure(
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR),
    )
    asyncio.run(serve(sys.argv[1]))
