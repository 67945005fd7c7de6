"""The attack corpus against real workers: reads it, runs each row in each profile that has its layer, and judges.

    python -m tests.support.corpus [FILE] [--profile NAME] [--verbose]

is `make attacks`. As root every row runs twice, the second time with a nexlet that is an ordinary user. The closing
line is `N passed, M failed`; a row counts once for each profile and user it ran with. What could not be run here (a
profile whose layers this machine lacks) is said in a line of its own.

Rows of the layer `language` are functions: `main()` is called by the handler of a deployed one. Rows of the layer
`kernel` are plain Python in a locked worker without a language layer (`tests/support/corpus_worker.py`). Pool, link and
zygote are production's in both. Whatever a row does, a neighbour (another function, with a call in flight all the time)
keeps getting its own answers from the same process, and the next call after the attack is served.
"""

from __future__ import annotations

import argparse
import ast
import asyncio
import contextlib
import dataclasses
import functools
import importlib.util
import json
import os
import re
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from nexlet_sandboxes.calls import Result
from nexlet_sandboxes.frames import RESULT, RESULT_EXTRA, Kind
from nexlet_sandboxes.outcomes import LoadRefused, Outcome, SandboxError
from nexlet_sandboxes.pool import Pool
from nexlet_sandboxes.profiles import PROFILES
from nexlet_sandboxes.program import Program
from nexlet_sandboxes.zygote import LayerUnavailable, Zygote
from tests.support import unprivileged
from tests.support.corpus_worker import ATTACK
from tests.support.polling import eventually
from tests.support.pools import MIB, KeepingSink, call, limits, run

__all__ = [
    "CORPUS",
    "Row",
    "Run",
    "Verdict",
    "attack",
    "concerns",
    "imports",
    "read",
    "run_as_user",
    "verdict",
    "written_out",
]

CORPUS: Final = Path(__file__).parents[1] / "sandboxes" / "attacks.json"

AT_ONCE: Final = 6
"""Rows that run side by side: most of those that end by a limit only wait for it."""

TIMEOUT: Final = 0.25
"""Seconds for a row that is expected to end by a limit or by the clock ..."""

DEFAULT_TIMEOUT = 10.0
"""... and for every other, so that a slow machine does not turn a refusal into a timeout ..."""

COMPUTING: Final = 6
"""... with so many times as much where it may have to compute first: `7 ** 3000000` takes a second by itself, with five
other rows beside it, and is refused when it is made a text."""

WELL: Final = "def handler(event, context):\n    return event.data\n"

NEIGHBOUR: Final = """
import time
def handler(event, context):
    time.sleep(0.01)
    return event.data
"""

# --- rows -------------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """One attack of a corpus file; see its "about" for the fields."""

    name: str
    category: str
    layer: str
    expected: frozenset[str]
    source: str


def read(file: Path) -> list[Row]:
    """All rows of a corpus file; "-" is standard input.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no corpus file, or has a recipe that is not understood.
    """
    said = json.loads(sys.stdin.read() if str(file) == "-" else file.read_text())
    if not isinstance(said, dict) or not isinstance(said.get("attacks"), list):
        raise ValueError("a corpus file is an object with a list of attacks")
    for number, row in enumerate(said["attacks"]):
        if missing := {"name", "layer", "expected"} - set(row):
            raise ValueError(f"attack {number} does not say: {', '.join(sorted(missing))}")
        if row.get("source") is None and "recipe" not in row:
            raise ValueError(f"attack {row['name']} has neither a source nor a recipe")
    return [
        Row(
            name=row["name"],
            category=row.get("category", ""),
            layer=row["layer"],
            expected=frozenset((row["expected"], *(row.get("also_ok") or ()))),
            source=row["source"] if row.get("source") is not None else written_out(row["recipe"]),
        )
        for row in said["attacks"]
    ]


def written_out(recipe: str) -> str:
    """The source that a recipe describes, with a `main` behind it.

    Raises:
        ValueError: it is neither an expression over texts nor known by its words.
    """
    in_words = IN_WORDS.get(recipe)
    if in_words is not None:
        return in_words() + "\ndef main():\n    return x\n"
    try:
        # "expression, N=number": as the elements of a tuple they would not parse, as a call's arguments they do.
        parsed = ast.parse(f"recipe({recipe})", mode="eval").body
        assert isinstance(parsed, ast.Call)
        (expression,) = parsed.args
        text = _value(expression, {word.arg or "": ast.literal_eval(word.value) for word in parsed.keywords})
    except (SyntaxError, ValueError) as error:
        raise ValueError(f"the recipe {recipe!r} is not understood; write it out in {Path(__file__).name}") from error
    text = text.decode() if isinstance(text, bytes) else text
    return f"{text}\ndef main():\n    return x\n"


def _value(node: ast.expr, names: Mapping[str, object]) -> Any:
    """Constants, names, `+`, `*`, lists and `join`: what recipes are written in, and nothing that could run."""
    match node:
        case ast.Constant(value=value):
            return value
        case ast.Name(id=name) if name in names:
            return names[name]
        case ast.List(elts=elements):
            return [_value(element, names) for element in elements]
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return _value(left, names) + _value(right, names)
        case ast.BinOp(left=left, op=ast.Mult(), right=right):
            return _value(left, names) * _value(right, names)
        case ast.Call(func=ast.Attribute(value=text, attr="join"), args=[parts], keywords=[]):
            return _value(text, names).join(_value(parts, names))
    raise ValueError(f"{ast.dump(node)[:100]} is nothing a recipe may say")


def _nested_fstring(depth: int) -> str:
    text = "1"
    for _ in range(depth):
        text = f'f"{{{text}}}"'
    return "x = " + text


IN_WORDS: Final[Mapping[str, Callable[[], str]]] = {
    "f-string nested to depth N, N=150": lambda: _nested_fstring(150),
    "'#' * 16 MiB": lambda: "#" * (16 * MIB),
}

CONCERNS: Final[Mapping[str, frozenset[str]]] = {
    "fs": frozenset({"landlock", "seccomp"}),
    "net": frozenset({"seccomp"}),
    "exec": frozenset({"seccomp"}),
    "proc": frozenset({"seccomp"}),
    "priv": frozenset({"seccomp"}),
    "limits": frozenset({"rlimits"}),
    "fd": frozenset({"descriptors", "rlimits"}),
    "ipc": frozenset(),
}
"""Which layers a category of kernel rows is about: it runs in the profiles that have them all. A category that is not
here is held against the profiles that filter system calls."""


def concerns(row: Row, profile: str) -> bool:
    """Whether `profile` has the layers that `row` is about. The language layer is in all of them."""
    if row.layer == "language":
        return True
    return CONCERNS.get(row.category, frozenset({"seccomp"})) <= set(PROFILES[profile].layers)


# --- judging ----------------------------------------------------------------------------------------------------------

PASSES: Final[Mapping[str, Mapping[str, frozenset[str]]]] = {
    "language": {
        "compile": frozenset({"compile"}),
        "runtime": frozenset({"compile", "runtime"}),
        "contained": frozenset({"compile", "runtime", "contained"}),
        "limit": frozenset({"compile", "runtime", "timeout", "memory"}),
    },
    "kernel": {
        "killed": frozenset({"killed", "timeout"}),
        "denied": frozenset({"killed", "denied"}),
        "limit": frozenset({"killed", "denied", "timeout", "memory"}),
        "contained": frozenset({"killed", "denied", "timeout", "memory", "contained"}),
    },
}
"""What passes for what was expected: an earlier or stricter stop does. For a `denied` row a timeout does not: it was
let do what it does until its time was up."""

DENIALS: Final = frozenset({"OSError", "AssertionError", "RuntimeError", "ValueError"})
"""How the system's refusal shows in Python: an error number, a row's own assertion, `can't start new thread`, and
setrlimit's `not allowed to raise`. Every other exception is a fault of the row or of the harness, and no pass."""

LEAKS: Final = re.compile(
    rb"0x[0-9a-fA-F]{6,}|nexlet_sandboxes|site-packages|" + re.escape(os.fsencode(sys.base_prefix))
)
"""What no text of a function may hold: an address, a file or a module of ours."""


@dataclasses.dataclass(frozen=True, slots=True)
class Verdict:
    """How one row ended in one profile.

    Attributes:
        met: one of the words in `PASSES`, `ran` (nothing stopped it), or `fault`.
        detail: one line.
    """

    row: str
    profile: str
    user: str
    expected: str
    met: str
    detail: str
    passed: bool

    def __str__(self) -> str:
        word = "passed" if self.passed else "FAILED"
        return (
            f"{word}  {self.profile}/{self.user}  {self.row}: expected {self.expected}, met {self.met} ({self.detail})"
        )


def verdict(row: Row, profile: str, met: str, detail: str) -> Verdict:
    """Judge what was met by what passes for what was expected."""
    known = PASSES.get(row.layer, {})
    passed = any(met == one or met in known.get(one, ()) for one in row.expected)
    expected = "|".join(sorted(row.expected))
    return Verdict(row.name, profile, _user(), expected, met, " ".join(detail.split())[:300], passed)


def _user() -> str:
    return "root" if os.geteuid() == 0 else "user"


def _stop(result: Result) -> tuple[str, str] | None:
    """What ended a call from outside; None where it came to an end of its own."""
    stops = {Outcome.TIMEOUT: "timeout", Outcome.MEMORY: "memory", Outcome.CRASH: "killed"}
    word = stops.get(result.outcome)
    return (word, result.error) if word else None


# --- running ----------------------------------------------------------------------------------------------------------


class FallenZygote(Zygote):
    """Makes workers without a language layer."""


def _fallen(rows: Iterable[Row]) -> type[FallenZygote]:
    script = str(Path(__file__).with_name("corpus_worker.py"))
    modules = sorted({module for row in rows for module in imports(row.source) if _exists(module)})
    return type("Fallen", (FallenZygote,), {"arguments": ("-I", script, *modules)})


def imports(source: str) -> set[str]:
    """Every module that a source imports, wherever it does so."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                found.update(alias.name for alias in names)
            case ast.ImportFrom(module=str(module)):
                found.add(module)
            case ast.Call(
                func=ast.Name(id="__import__") | ast.Attribute(attr="import_module"),
                args=[ast.Constant(value=str(module)), *_],
            ):
                found.add(module)
    return found


def _exists(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


class Neighbour:
    """Another function of the same nexlet, with one call in flight at any time."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self.answers = 0

    @property
    def invocation(self) -> int:
        """The number of the invocation that is in flight."""
        return self.answers + 1

    async def keep_asking(self) -> None:
        """Ask until cancelled.

        Raises:
            AssertionError: an answer was not its own.
        """
        while True:
            payload = b"neighbour %d" % self.answers
            (result,) = await run(self._pool, payload)
            assert (result.outcome, result.body) == (Outcome.OK, payload), f"the neighbour got {result.error!r}"
            self.answers += 1

    def assert_untouched(self) -> None:
        """Fail where its worker is not the one it began with."""
        stats = self._pool.stats()
        fresh_for_each = PROFILES[self._pool.profile].single_use
        assert stats.deaths == {}, f"the neighbour's worker died: {stats}"
        assert fresh_for_each or stats.cold_starts == 1, f"the neighbour has another worker: {stats}"


@contextlib.asynccontextmanager
async def _neighbour(zygote: Zygote, profile: str) -> AsyncIterator[Neighbour]:
    pool = Pool(zygote, Program(NEIGHBOUR), limits(), KeepingSink(), profile=profile)
    await pool.start()
    neighbour = Neighbour(pool)
    asking = asyncio.create_task(neighbour.keep_asking())
    try:
        yield neighbour
        if asking.done():
            asking.result()
        neighbour.assert_untouched()
    finally:
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        await pool.close()


async def attack(profile: str, rows: Sequence[Row]) -> list[Verdict]:
    """Run rows in workers of one profile.

    Raises:
        AssertionError: a neighbour was touched, or a process was left behind.
    """
    rows = [row for row in rows if concerns(row, profile)]
    taken = asyncio.Semaphore(AT_ONCE)
    fallen = await _fallen(row for row in rows if row.layer == "kernel").start()
    zygote = await Zygote.start()
    try:
        async with _neighbour(zygote, profile) as neighbour:

            async def one(row: Row) -> Verdict:
                async with taken:
                    run_row = _language if row.layer == "language" else _kernel
                    try:
                        return await run_row(row, profile, zygote, fallen, neighbour)
                    except Exception as error:  # whatever it is, the other rows are still to be run
                        return verdict(row, profile, "fault", f"the nexlet raised {type(error).__name__}: {error}")

            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(one(row)) for row in rows]
        for made in (zygote, fallen):
            # A start that was cancelled ends its worker as soon as the zygote has told of it: after its pool is closed.
            await eventually(functools.partial(_alone, made), what="no worker outlives its pool")
            assert made.restarts == 0, "a zygote ended"
    finally:
        await zygote.close()
        await fallen.close()
    return [task.result() for task in tasks]


def _alone(zygote: Zygote) -> bool:
    return not Path(f"/proc/{zygote.pid}/task/{zygote.pid}/children").read_text().split()


def _limits(row: Row) -> Any:
    ends_by_the_clock = bool(row.expected & {"limit", "killed"})
    patience = DEFAULT_TIMEOUT * COMPUTING if row.layer == "language" else DEFAULT_TIMEOUT
    timeout = TIMEOUT if ends_by_the_clock else patience
    return limits(timeout=timeout, load_timeout=max(timeout, 1.0), memory=64 * MIB, log_rate=16 * 1024)


async def _language(row: Row, profile: str, zygote: Zygote, fallen: Zygote, neighbour: Neighbour) -> Verdict:
    program = Program(row.source + "\ndef handler(event, context):\n    return main()\n")
    sink = KeepingSink()
    pool = Pool(zygote, program, _limits(row), sink, profile=profile)
    try:
        await pool.start()
    except LoadRefused as refused:
        said = "; ".join(problem.message for problem in refused.problems)
        stages = {"load-raised": "runtime", "load-timeout": "timeout", "load-memory": "memory"}
        met = next((stages[problem.code] for problem in refused.problems if problem.code in stages), "compile")
        text = json.dumps([dataclasses.asdict(problem) for problem in refused.problems]).encode()
    except SandboxError as error:
        return verdict(row, profile, "fault", str(error))
    else:
        async with _closing(pool):
            (result,) = await run(pool, b"")
        stages = {Outcome.OK: "contained", Outcome.ERROR: "runtime", Outcome.REJECTED_BY_FUNCTION: "runtime"}
        met, said = _stop(result) or (stages[result.outcome], result.error or repr(result.body[:100]))
        text = b"\n".join((result.body, result.headers, result.error.encode(), result.traceback.encode()))
    leaked = LEAKS.search(text + b"\n" + b"\n".join(line for _, _, _, line in sink.lines))
    if leaked:
        return verdict(row, profile, "fault", f"{leaked[0]!r} got out")
    await _serves(zygote, profile)
    return verdict(row, profile, met, said)


@contextlib.asynccontextmanager
async def _closing(pool: Pool) -> AsyncIterator[None]:
    try:
        yield
    finally:
        await pool.close()


async def _serves(zygote: Zygote, profile: str) -> None:
    """A fresh function starts and answers."""
    pool = Pool(zygote, Program(WELL), limits(), KeepingSink(), profile=profile)
    await pool.start()
    async with _closing(pool):
        (result,) = await run(pool, b"well")
    assert result.body == b"well", result.error


async def _kernel(row: Row, profile: str, zygote: Zygote, fallen: Zygote, neighbour: Neighbour) -> Verdict:
    missing = [module for module in imports(row.source) if not _exists(module)]
    if missing:
        return verdict(row, profile, "fault", f"there is no module {missing[0]} here")
    pool = Pool(fallen, Program(row.source), _limits(row), KeepingSink(), profile=profile)
    await pool.start()
    async with _closing(pool):
        forged = RESULT.pack(RESULT_EXTRA + 6, Kind.RESULT, 0, 0, neighbour.invocation, 1, 1, 1, 0) + b"forged"
        (result,) = await run(pool, call(ATTACK + forged))
        (after,) = await run(pool, b"well")
    if (after.outcome, after.body) != (Outcome.OK, b"well"):
        return verdict(row, profile, "fault", f"the next call ended {after.outcome}: {after.error}")
    return verdict(row, profile, *(_stop(result) or _said(row, result)))


def _said(row: Row, result: Result) -> tuple[str, str]:
    """What became of a row that the worker itself could tell of."""
    if result.outcome is not Outcome.OK:
        return "fault", f"{result.outcome}: {result.error}"
    through = "contained" if "contained" in row.expected else "ran"
    try:
        said = json.loads(result.body)
    except json.JSONDecodeError:
        return through, "it answered for itself"  # which it may: the invocation was its own
    if said["raised"] is None:
        return through, "it ran to its end"
    kinds = said["raised"]
    detail = f"{kinds[0]}: {said['text']}"
    # A wait that ended is no refusal: what was asked for had been granted.
    denied = DENIALS & set(kinds) and "TimeoutError" not in kinds
    return ("denied" if denied else "fault"), detail


# --- the command ------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(slots=True)
class Run:
    """What came of a corpus.

    Attributes:
        verdicts: of every row that was run.
        missing: what could not be run here, each with the reason.
    """

    verdicts: list[Verdict] = dataclasses.field(default_factory=list)
    missing: dict[str, str] = dataclasses.field(default_factory=dict)


async def _run(rows: Sequence[Row], profiles: Sequence[str]) -> Run:
    run = Run()
    for profile in profiles:
        try:
            run.verdicts += await attack(profile, rows)
        except LayerUnavailable as unavailable:
            run.missing[f"{profile}/{_user()}"] = unavailable.reason
    return run


async def run_as_user(file: Path, profiles: Sequence[str]) -> Run:
    """The same in a process of an ordinary user; only root can become one.

    Raises:
        AssertionError: that process failed, with its standard error.
    """
    here = [sys.executable, "-m"]
    command = [*here, "tests.support.unprivileged", *here, "tests.support.corpus", "-", "--json"]
    for profile in profiles:
        command += ["--profile", profile]
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=Path(__file__).parents[2],
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    # Not its path: it may lie where only root may look.
    out, err = await process.communicate(file.read_bytes())
    if process.returncode == unprivileged.IMPOSSIBLE:
        return Run(missing={f"{profile}/user": err.decode().strip() for profile in profiles})
    assert process.returncode == 0, err.decode()
    said = json.loads(out)
    return Run([Verdict(**one) for one in said["verdicts"]], said["missing"])


async def _everything(file: Path, rows: Sequence[Row], profiles: Sequence[str]) -> Run:
    run = await _run(rows, profiles)
    if os.geteuid() == 0:
        as_user = await run_as_user(file, profiles)
        run.verdicts += as_user.verdicts
        run.missing |= as_user.missing
    return run


def main() -> int:
    """Run a corpus file and print what came of it."""
    parser = argparse.ArgumentParser(prog="make attacks", description="The attack corpus against real workers.")
    parser.add_argument("file", type=Path, nargs="?", default=CORPUS, help="a corpus file (default: the tests' own)")
    parser.add_argument("--profile", action="append", choices=sorted(PROFILES), help="only this one; may be repeated")
    parser.add_argument("--verbose", action="store_true", help="print what passed, too")
    parser.add_argument("--json", action="store_true", help="this user alone; verdicts as JSON")
    chosen = parser.parse_args()
    profiles = chosen.profile or sorted(PROFILES)
    try:
        rows = read(chosen.file)
    except (OSError, ValueError) as error:
        parser.error(f"{chosen.file}: {error}")
    if chosen.json:
        print(json.dumps(dataclasses.asdict(asyncio.run(_run(rows, profiles)))))
        return 0
    run = asyncio.run(_everything(chosen.file, rows, profiles))
    verdicts = run.verdicts
    for where, reason in run.missing.items():
        print(f"not run  {where}: {reason}")
    for one in verdicts:
        if chosen.verbose or not one.passed:
            print(one)
    failed = sum(not one.passed for one in verdicts)
    print(f"{len(verdicts) - failed} passed, {failed} failed")
    return 1 if failed or not verdicts else 0


if __name__ == "__main__":
    sys.exit(main())
