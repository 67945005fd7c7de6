"""What a nexlet holds: so that a test can say that an invocation, a function or a fault left nothing behind.

The nexlet runs within the test's own process, so what is counted is of this process: descriptors, pages shared with
workers, tasks, child processes, temporary files. What it subscribes to is asked of the server.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import urllib.request
from collections import Counter
from dataclasses import dataclass, fields
from pathlib import Path

from tests.support.processes import descendants

__all__ = ["Inventory", "fetch", "nothing_left", "settled_inventory", "subscriptions", "take_inventory"]

CONNECTIONS = ("nexlet", "nexlet-agent", "nexlet-workloads")
"""What a nexlet calls its connections."""

AROUND = ("nats-server", "nex")
"""Processes that are no nexlet's: a test may have started them anew meanwhile."""

CLIENT_TASKS = ("Subscription._wait_for_msgs",)
"""A task of nats-py's for each subscription with a callback; they come and go with requests, and are no nexlet's."""


@dataclass(frozen=True, slots=True)
class Inventory:
    """What there is at a moment, each kind counted by what names it best.

    Attributes:
        processes: below this one, by name and id, but for servers and nodes.
        descriptors: by what they lead to.
        pages: mappings that are shared with other processes.
        tasks: by what they run.
        files: below the folders that were named.
        subscriptions: of the nexlet's connections, by connection, subject and queue group.
    """

    processes: Counter[str]
    descriptors: Counter[str]
    pages: Counter[str]
    tasks: Counter[str]
    files: Counter[str]
    subscriptions: Counter[str]

    def beyond(self, earlier: Inventory) -> dict[str, list[str]]:
        """What is here and was not there, and what was there and is gone (with a minus), by kind."""
        changes = {}
        for kind in (field.name for field in fields(self)):
            now, then = getattr(self, kind), getattr(earlier, kind)
            if now != then:
                changes[kind] = [*(now - then).elements(), *(f"-{gone}" for gone in (then - now).elements())]
        return changes


async def take_inventory(monitoring: str, *folders: Path) -> Inventory:
    """What there is now.

    Args:
        monitoring: URL of the server's monitoring.
        folders: whose files are counted.
    """
    subscribed = await subscriptions(monitoring)
    # A descriptor of the server's answer may be open until here: everything else is looked at in one go, later.
    links = []
    for number in os.listdir("/proc/self/fd"):
        try:
            links.append(re.sub(r":\[\d+\]", "", os.readlink(f"/proc/self/fd/{number}")))
        except (FileNotFoundError, ProcessLookupError):
            continue  # of the listing itself
    maps = Path("/proc/self/maps").read_text().splitlines()
    own = asyncio.current_task()
    return Inventory(
        processes=Counter(
            f"{name} {pid}" for pid, _ in descendants(os.getpid()) if (name := _name(pid)) and name not in AROUND
        ),
        descriptors=Counter(links),
        pages=Counter(words[5] for words in map(str.split, maps) if words[1].endswith("s") and len(words) > 5),
        tasks=Counter(
            running
            for task in asyncio.all_tasks()
            if task is not own and not task.done() and (running := _running(task)) not in CLIENT_TASKS
        ),
        files=Counter(str(file) for folder in folders for file in folder.rglob("*")),
        subscriptions=subscribed,
    )


async def settled_inventory(monitoring: str, *folders: Path) -> Inventory:
    """What there is once that does not change from one look to the next: something may be ending still."""
    then = await take_inventory(monitoring, *folders)
    while True:
        await asyncio.sleep(0.05)
        now = await take_inventory(monitoring, *folders)
        if now == then:
            return now
        then = now


async def subscriptions(monitoring: str) -> Counter[str]:
    """What the nexlets' connections subscribe to, as the server has it."""
    said = await asyncio.to_thread(fetch, f"{monitoring}/connz?subs=detail&limit=10000")
    return Counter(
        f"{connection['name']} {one['subject']} {one.get('qgroup', '')}"
        for connection in json.loads(said)["connections"]
        if connection.get("name") in CONNECTIONS
        for one in connection.get("subscriptions_list_detail", ())
    )


async def nothing_left(before: Inventory, monitoring: str, *folders: Path, within: float = 10.0) -> None:
    """Return once there is what there was.

    Raises:
        AssertionError: there is something else after `within` seconds; it says what.
    """
    deadline = asyncio.get_running_loop().time() + within
    while changes := (await take_inventory(monitoring, *folders)).beyond(before):
        assert asyncio.get_running_loop().time() < deadline, f"not as it was before: {changes}"
        await asyncio.sleep(0.02)


def fetch(url: str) -> bytes:
    """What is served there. Blocks."""
    with urllib.request.urlopen(url, timeout=10) as answer:
        body: bytes = answer.read()
        return body


def _name(pid: int) -> str:
    """Of the program; "" where it has ended."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def _running(task: asyncio.Task[object]) -> str:
    coroutine = task.get_coro()
    return str(getattr(coroutine, "__qualname__", coroutine))
