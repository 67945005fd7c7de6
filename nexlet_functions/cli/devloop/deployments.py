"""What runs of each function folder, and what it takes to bring that up to what the folders say.

`Deployments.look` looks at every folder, deploys what is new, replaces what was saved, stops what is gone, and yields a
word about each. A replacement loses no request (see `nexlet_functions.shipping`), and where the new version is
refused the one before it goes on.

What is seen in the middle of saving (a file emptied before it is written, a Nexfile moved aside) is no version: what
is wrong with a folder is only told, and a folder only taken for gone, where it is still so a moment later.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from nexlet_functions.cli.deploy import with_its_source
from nexlet_functions.cli.devloop.folders import Stamp, folders_in, newest, places_of, stamp_of
from nexlet_functions.control import ControlClient, ControlRefused, NoAnswer, NoBid, TooLarge
from nexlet_functions.devnode.buckets import make_granted
from nexlet_functions.nexfile import FunctionRefused, has_nexfile, read_function
from nexlet_functions.shipping import Left, ship
from nexlet_models.problems import Problem
from nexlet_models.start_request import SECRET_PREFIX

if TYPE_CHECKING:
    from nexlet_functions.nexfile import FunctionFolder
    from nexlet_models.start_request import StartRequest

__all__ = ["Deployed", "Deployments", "Gone", "Refused", "Started", "Unchanged"]

SETTLE: Final = 0.15
"""Seconds until what is wrong with a folder is believed: longer than an editor takes to write two files."""

RECENT: Final = 5.0
"""Seconds. A file that was changed longer ago was not saved now, but copied with its time, or found at the start."""


@dataclass(frozen=True, slots=True)
class Deployed:
    """A function that runs.

    Attributes:
        function: its folder, as it was when it was deployed.
        workload_id: as what.
    """

    function: FunctionFolder
    workload_id: str

    @property
    def subjects(self) -> tuple[str, ...]:
        """The subjects that trigger it; none where only streams or schedules do."""
        start = self.function.start
        return tuple(trigger.subject for trigger in start.subject_triggers) or (
            (self.workload_id,) if not start.triggers else ()
        )

    @property
    def triggers(self) -> tuple[str, ...]:
        """All that triggers it, for people."""
        start = self.function.start
        others = (f"[{trigger.text}]" for trigger in (*start.stream_triggers, *start.timed_triggers))
        return (*self.subjects, *others)

    def answers(self, subject: str) -> bool:
        """Whether a message on that subject is answered."""
        from nexlet_models.subjects import matches

        start = self.function.start
        found = [trigger.reply for trigger in start.subject_triggers if matches(trigger.subject, subject)]
        return all(found) if found else not start.stream_triggers


@dataclass(frozen=True, slots=True)
class Started:
    """A function runs, or a new version of it.

    Attributes:
        deployed: it.
        replaced: ids of what ran before it in its place.
        seconds: since it was saved, or else since it was looked at.
        trouble: why what ran before goes on as well; "" where it does not.
    """

    deployed: Deployed
    replaced: tuple[str, ...]
    seconds: float
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class Refused:
    """A folder's function does not run as it is.

    Attributes:
        name: of the function.
        text: why, as `check` says it.
        problems: the same, where they are known one by one.
        kept: the version that goes on.
    """

    name: str
    text: str
    problems: tuple[Problem, ...]
    kept: Deployed | None


@dataclass(frozen=True, slots=True)
class Unchanged:
    """What was refused is again as it runs."""

    deployed: Deployed


@dataclass(frozen=True, slots=True)
class Gone:
    """A folder is gone, and its function was stopped.

    Attributes:
        deployed: what ran.
        failure: why it could not be stopped; "" where it was.
    """

    deployed: Deployed
    failure: str = ""


Change = Started | Refused | Unchanged | Gone


class Deployments:
    """The functions of some folders.

    Attributes:
        running: what runs, by folder.
        leaving: ids of what is being stopped, or was, because of its folder.
    """

    def __init__(
        self,
        roots: Sequence[Path],
        control: ControlClient,
        namespace: str,
        secrets: Path | None,
        *,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
        prepare: Callable[[StartRequest], Awaitable[None]] | None = None,
    ) -> None:
        """Nothing is looked at yet.

        Args:
            roots: function folders, or folders of function folders.
            secrets: folder with `NAMESPACE/KEY`: a secret that is saved is a new version of those that have it.
            pause: waits so many seconds.
            prepare: called before each deployment, to have what is there that the function wants.
        """
        self._roots = tuple(roots)
        self._pause = pause
        self._control = control
        self._namespace = namespace
        self._prepare = prepare
        self._secrets = secrets / namespace if secrets is not None else None
        self.running: dict[Path, Deployed] = {}
        self.leaving: set[str] = set()
        self._seen: dict[Path, Stamp] = {}
        self._secrets_of: dict[Path, tuple[Path, ...]] = {}
        self._secrets_seen: dict[Path, Stamp] = {}
        self._refused: set[Path] = set()
        self._taken: dict[Path, Path] = {}
        self._settles = False  # what is there at the start was not just being saved

    def places(self) -> frozenset[Path]:
        """The folders in which something may be saved that `look` would see."""
        further = [self._secrets] if self._secrets is not None and self._secrets.is_dir() else []
        return places_of(self._roots).union(further)

    async def look(self) -> AsyncGenerator[Change, None]:
        """Bring what runs up to what the folders say; a word about each that is another one than before."""
        while True:
            for path in folders_in(self._roots):
                if self._seen.get(path) != self._stamp(path) or self._may_have_its_name(path):
                    change = await self._up_to_date(path)
                    if change is not None:
                        yield change
            self._settles = True
            async for gone in self._stop_missing():
                yield gone
            if not any(self._may_have_its_name(path) for path in self._taken):
                return

    def _stamp(self, path: Path) -> Stamp:
        return stamp_of(path) + stamp_of(None, self._secrets_of.get(path, ()))

    async def _up_to_date(self, path: Path) -> Change | None:
        noticed = time.time()
        while True:
            stamp = stamp_of(path)
            change = await self._version(path, stamp, noticed)
            if not isinstance(change, Refused):
                return change
            if self._settles:
                await self._pause(SETTLE)
            if not has_nexfile(path):
                return None  # gone, or about to come back: both are seen
            if stamp_of(path) == stamp:
                self._refused.add(path)
                return change

    async def _version(self, path: Path, stamp: Stamp, noticed: float) -> Change | None:
        """Have that run which the folder says now.

        Args:
            stamp: of the folder, before it is read.
            noticed: when it was seen to be another one, in seconds since the epoch.
        """
        self._taken.pop(path, None)
        self._seen[path] = stamp + stamp_of(None, self._secrets_of.get(path, ()))
        try:
            function = read_function(path)
            self._refuse_a_name_that_is_taken(path, function)
        except FunctionRefused as refused:
            return self._refusal(path, refused.name, with_its_source(refused, {}))
        except OSError as error:
            return self._refusal(path, path.name, error)
        self._know_secrets(path, function)
        secrets = stamp_of(None, self._secrets_of[path])
        self._seen[path] = stamp + secrets
        before = self.running.get(path)
        if before is not None and _same(before.function, function) and self._secrets_seen.get(path) == secrets:
            if path in self._refused:
                self._refused.discard(path)
                return Unchanged(before)
            return None
        trouble = ""
        # Known before it happens: that they have stopped may be told before their successor is said to run.
        of_its_name = {one.workload_id for one in self.running.values() if one.function.name == function.name}
        self.leaving |= of_its_name
        if self._prepare is not None:
            await self._prepare(function.start)
        try:
            if function.start.grants:
                # On a real server that is for its operator to do, and a function finds none behind anybody's back.
                await make_granted(self._control.client, function.start.grants)
            shipped = await ship(self._control, function, self._namespace)
        except (ControlRefused, NoAnswer, NoBid, TooLarge) as error:
            self.leaving -= of_its_name
            return self._refusal(path, function.name, error)
        except Left as left:
            shipped, trouble = left.shipped, str(left)
        self._refused.discard(path)
        self._secrets_seen[path] = secrets
        deployed = Deployed(function, shipped.workload_id)
        replaced = {one.id for one in shipped.replaced}
        self._take_place(path, deployed, replaced)
        if before is not None and before.function.name != function.name:
            trouble = await self._stop(before) or trouble
            replaced.add(before.workload_id)
        saved = newest(self._seen[path])
        began = saved if before is not None and 0 <= noticed - saved < RECENT else noticed
        return Started(deployed, tuple(sorted(replaced)), time.time() - began, trouble)

    def _take_place(self, path: Path, deployed: Deployed, replaced: set[str]) -> None:
        """It is what runs of that folder, and no other folder has what it took the place of."""
        self.running[path] = deployed
        for other in [other for other, one in self.running.items() if one.workload_id in replaced]:
            # It bore that name before it was renamed; where it is still there, it is looked at anew.
            self._forget(other)

    async def _stop(self, deployed: Deployed) -> str:
        """Stop it; why that could not be done, "" where it could."""
        self.leaving.add(deployed.workload_id)
        try:
            await self._control.stop(deployed.workload_id, namespace=self._namespace)
        except (ControlRefused, NoAnswer) as error:
            return str(error)
        return ""

    def _refusal(self, path: Path, name: str, error: Exception) -> Refused:
        problems = tuple(getattr(error, "problems", ()))
        return Refused(name, str(error), problems, self.running.get(path))

    def _refuse_a_name_that_is_taken(self, path: Path, function: FunctionFolder) -> None:
        """Whoever bears a name runs in the place of whoever bore it: two folders would take turns.

        Raises:
            FunctionRefused: another folder has the name, and goes on having it.
        """
        for other, one in self.running.items():
            if other != path and one.function.name == function.name and _name_in(other) == function.name:
                self._taken[path] = other
                problem = function.document.problem(
                    "name",
                    f"{function.name} is the name of the function in {other} as well",
                    advice="choose another one: a function takes the place of one that runs under its name",
                    code="name-taken",
                )
                raise FunctionRefused(function.name, [problem])

    def _may_have_its_name(self, path: Path) -> bool:
        """Whether it was refused for its name, and the folder that had that does not have it any more."""
        other = self._taken.get(path)
        if other is None:
            return False
        return other not in self.running or _name_in(other) != self.running[other].function.name

    def _know_secrets(self, path: Path, function: FunctionFolder) -> None:
        named = (value.get_secret_value() for value in function.start.environment.values())
        keys = sorted({value.removeprefix(SECRET_PREFIX) for value in named if value.startswith(SECRET_PREFIX)})
        self._secrets_of[path] = tuple(self._secrets / key for key in keys) if self._secrets is not None else ()

    async def _stop_missing(self) -> AsyncGenerator[Gone, None]:
        missing = [path for path in {*self._seen, *self.running} if not has_nexfile(path)]
        if not missing:
            return
        await self._pause(SETTLE)
        for path in sorted(missing):
            if has_nexfile(path):
                continue
            deployed = self.running.get(path)
            self._forget(path)
            if deployed is not None:
                yield Gone(deployed, await self._stop(deployed))

    def _forget(self, path: Path) -> None:
        for known in (self.running, self._seen, self._secrets_of, self._secrets_seen, self._taken):
            known.pop(path, None)
        self._refused.discard(path)


def _name_in(path: Path) -> str:
    """The name that a folder's function has by now; "" where there is none."""
    try:
        return read_function(path).name
    except FunctionRefused as refused:
        return refused.name if has_nexfile(path) else ""
    except OSError:
        return ""


def _same(one: FunctionFolder, other: FunctionFolder) -> bool:
    """Whether two states of a folder are one function to a node."""
    return _deployed_as(one) == _deployed_as(other)


def _deployed_as(function: FunctionFolder) -> tuple[str, str, str, str, Mapping[str, str], Mapping[str, object]]:
    return (
        function.name,
        function.type,
        function.lifecycle,
        function.description,
        function.tags,
        function.request,
    )
