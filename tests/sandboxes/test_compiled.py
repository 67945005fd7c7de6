"""The compiled form of a program: made in one process, taken by others of the same function, and attacked in between.

The nexlet keeps it as bytes. Whoever has taken over the process that compiles can make it what they like, which decides
about workers of their own function and nothing else: these are as locked as any.
"""

from __future__ import annotations

import asyncio
import marshal
import tracemalloc

import pytest

from nexlet_sandboxes import growth
from nexlet_sandboxes.frames import HEADER, MAX_COMPILED, Kind, frame
from nexlet_sandboxes.language import load, loading, translate
from nexlet_sandboxes.link import MAX_REFUSAL, Link
from nexlet_sandboxes.outcomes import LoadRefused, Outcome, SandboxError
from nexlet_sandboxes.pool import Pool
from nexlet_sandboxes.program import Program
from nexlet_sandboxes.zygote import Zygote
from tests.support.hostile import Peer, Script, behave, open_stage
from tests.support.language import Host
from tests.support.pools import KeepingSink, Sandbox, limits, open_pool, run
from tests.support.zygotes import open_zygote

ECHO = "def handler(event, context):\n    return event.data\n"

PROGRAM = Program(
    """
from prices import price, Item


def handler(event, context):
    try:
        return price(Item(event))
    except KeyError as error:
        raise ValueError(f"no price of {event}") from error
""",
    files={
        "prices.py": """
PRICES = {"apple": 3}


class Item:
    def __init__(self, name):
        self.name = name


def price(item):
    return [
        PRICES[name]
        for name in (item.name,)
    ][0]
"""
    },
)

MAGIC = loading._MAGIC


def told(program: Program, event: object, compiled: bytes) -> tuple[str, str]:
    """What is said of the exception that a call raises."""
    loaded = load(program, Host(), compiled=compiled)
    with pytest.raises(Exception) as raised:
        loaded.handler(event, None)
    return loaded.summary(raised.value), loaded.explain(raised.value)


# --- in the language layer -------------------------------------------------------------------------------------------


def test_what_is_loaded_from_it_does_and_says_the_same() -> None:
    form = translate(PROGRAM)
    assert load(PROGRAM, Host(), compiled=form).handler("apple", None) == 3
    said = told(PROGRAM, "pear", form)
    assert said == told(PROGRAM, "pear", b"")
    for line in ("PRICES[name]", "return price(Item(event))", 'raise ValueError(f"no price of {event}") from error'):
        assert line in said[1]


def test_a_module_that_raises_is_refused_with_the_same_problem() -> None:
    program = Program("import prices\n" + ECHO, files={"prices.py": "x = 1\ny = x / 0\n"})
    refusals = []
    for form in (b"", translate(program)):
        with pytest.raises(LoadRefused) as refused:
            load(program, Host(), compiled=form)
        refusals.append(refused.value.problems)
    assert refusals[0] == refusals[1]
    assert (refusals[0][0].place, refusals[0][0].line) == ("prices.py", 2)


@pytest.mark.parametrize("rest", [b"", b"\xff", marshal.dumps(("another", "shape"))])
def test_another_pythons_is_not_even_read_and_the_sources_are_compiled(rest: bytes) -> None:
    assert load(PROGRAM, Host(), compiled=b"\x00\x01\r\n" + rest).handler("apple", None) == 3


CODE = compile("x = 1", "x", "exec")

BROKEN: dict[str, bytes] = {
    "nothing behind the magic": MAGIC,
    "no marshal": MAGIC + b"\xff" * 100,
    "half of it": translate(PROGRAM)[:-100],
    "another type": MAGIC + marshal.dumps(17),
    "too few parts": MAGIC + marshal.dumps((CODE,)),
    "too many parts": MAGIC + marshal.dumps((CODE, {"prices.py": CODE}, CODE)),
    "no code": MAGIC + marshal.dumps(("x = 1", {"prices.py": "x = 1"})),
    "no code of one file": MAGIC + marshal.dumps((CODE, {"prices.py": None})),
    "a file that is missing": MAGIC + marshal.dumps((CODE, {})),
    "files that are no mapping": MAGIC + marshal.dumps((CODE, 5)),
    "nested without end": MAGIC + b")\x01" * 100_000 + b"N",
}


@pytest.mark.parametrize("form", BROKEN.values(), ids=BROKEN)
def test_what_is_no_compiled_form_is_refused_and_says_so(form: bytes) -> None:
    with pytest.raises(LoadRefused) as refused:
        load(PROGRAM, Host(), compiled=form)
    (problem,) = refused.value.problems
    assert problem.code == "compiled-form"
    assert problem.advice


# --- in real workers -------------------------------------------------------------------------------------------------


async def test_a_form_that_is_none_ends_the_start_in_every_profile(sandbox: Sandbox) -> None:
    for form in (BROKEN["half of it"], BROKEN["no marshal"]):
        with pytest.raises(LoadRefused, match="is no compiled form"):
            await start_with(sandbox, form)


async def start_with(sandbox: Sandbox, form: bytes) -> None:
    """Start a pool that takes this for the compiled form of its program."""
    pool = Pool(sandbox.zygote, PROGRAM, limits(), KeepingSink(), profile=sandbox.profile)
    pool.compiled = form
    await pool.start()
    await pool.close()


PAST_THE_POLICY = """
importer = [one for one in ().__class__.__base__.__subclasses__() if one.__name__ == "BuiltinImporter"][0]
posix = importer.load_module("posix")
"""


@pytest.mark.parametrize("then", ["posix.getpgid(0)", "posix._exit(7)"])
async def test_a_form_that_is_past_the_policy_meets_the_locks_and_ends_alone(zygote: Zygote, then: str) -> None:
    sandbox = Sandbox(zygote, "strict")
    code = compile(PAST_THE_POLICY + then, "function.py", "exec")
    async with open_pool(sandbox, ECHO, limits()) as neighbour:
        with pytest.raises(SandboxError, match=r"the worker died: (signal SIGSYS|exit code 7) while it loaded"):
            await start_with(sandbox, MAGIC + marshal.dumps((code, {"prices.py": code})))
        (result,) = await run(neighbour, b"well")
        assert result.body == b"well"
        assert (neighbour.stats().cold_starts, neighbour.stats().deaths) == (1, {})
    assert zygote.restarts == 0


async def test_of_a_program_that_is_too_large_compiled_every_worker_compiles_the_sources(zygote: Zygote) -> None:
    text = "x" * 900_000
    files = {f"part{number}.py": f"TEXT = '{number}{text}'\n" for number in range(MAX_COMPILED // len(text) + 1)}
    source = "from part3 import TEXT\ndef handler(event, context):\n    return TEXT[0]\n"
    async with open_pool(Sandbox(zygote, "strict"), source, limits(load_timeout=20.0), files=files) as pool:
        assert pool.compiled == b""
        (result,) = await run(pool, b"")
        assert result.body == b"3"
        pool._links[0].process.kill()
        (result,) = await run(pool, b"")
        assert result.body == b"3"


async def test_a_zygote_of_another_python_has_its_workers_compile(zygote: Zygote) -> None:
    """As where the interpreter was replaced under a nexlet that runs, and the zygote had to be started again."""
    change = "from nexlet_sandboxes.language import loading\nloading._MAGIC = b'3.99'\n"
    async with open_pool(Sandbox(zygote, "strict"), ECHO, limits()) as pool, open_zygote(change) as other:
        assert pool.compiled.startswith(MAGIC)
        pool.zygote = other
        pool._links[0].process.kill()
        (result,) = await run(pool, b"well")
        assert (result.outcome, result.body) == (Outcome.OK, b"well")
        assert pool.stats().cold_starts == 2


# --- with a process that compiles and has been taken over ------------------------------------------------------------


def saying(*what: bytes) -> Script:
    """Takes the sources, and says this."""

    async def script(peer: Peer) -> None:
        await peer.take()
        for one in what:
            await peer.say(one)

    return script


@pytest.mark.parametrize("form", [b"\xff" * 1000, b"x" * MAX_COMPILED], ids=["small", "as large as may be"])
async def test_the_nexlet_hands_it_on_to_its_own_function_and_to_nobody_else(form: bytes) -> None:
    async with (
        open_stage(behave, limits(), compiler=saying(frame(Kind.READY, form))) as (pool, _, stage),
        open_stage(behave, limits()) as (other, _, others),
    ):
        assert pool.compiled == stage.peers[0].compiled == form
        assert other.compiled == others.peers[0].compiled == b""
        (result,) = await run(pool, b"served")
        assert result.body == b"served"


PROBLEM = b'{"message":"x"},'

SAID: dict[str, tuple[bytes, type[SandboxError], str]] = {
    "a form larger than it may be": (
        HEADER.pack(MAX_COMPILED + 1, Kind.READY, 0, 0, 0),
        SandboxError,
        "more than the 4194304",
    ),
    "a refusal larger than it may be": (
        frame(Kind.REFUSED, b"[" + PROBLEM * (MAX_REFUSAL // len(PROBLEM)) + b"{}]"),
        SandboxError,
        f"a refusal of .* bytes, more than the {MAX_REFUSAL}",
    ),
    "an answer": (frame(Kind.RESULT, b"x" * 40, call=1), SandboxError, "which it was not asked"),
    "half a form": (frame(Kind.READY, b"x" * 1000)[:500], LoadRefused, r"did not end within 0\.3 s"),
    "nothing": (b"", LoadRefused, r"did not end within 0\.3 s"),
}


@pytest.mark.parametrize(("said", "kind", "reason"), SAID.values(), ids=SAID)
async def test_what_is_not_as_the_protocol_says_ends_the_start(
    said: bytes, kind: type[SandboxError], reason: str
) -> None:
    bounds = limits(load_timeout=0.3) if kind is LoadRefused else limits()
    with pytest.raises(kind, match=reason):
        async with open_stage(behave, bounds, compiler=saying(said)):
            pass


async def test_a_worker_gives_none_unasked() -> None:
    with pytest.raises(SandboxError, match="a compiled form that it was not asked for"):
        async with open_stage(saying(frame(Kind.READY, b"form")), limits()):
            pass


async def test_a_second_form_is_not_taken() -> None:
    twice = frame(Kind.READY, b"one") + frame(Kind.READY, b"two")
    async with open_stage(behave, limits(), compiler=saying(twice)) as (pool, _, _):
        assert pool.compiled == b"one"


async def test_a_refusal_of_very_many_things_takes_no_more_memory_than_it_may() -> None:
    """JSON takes many times its size when it is read, and a form may be sixteen times as large as a refusal."""
    lists = b"[" + b"{}," * (MAX_COMPILED // 3 - 10) + b"{}]"
    tracemalloc.start()
    try:
        with pytest.raises(SandboxError):
            async with open_stage(behave, limits(), compiler=saying(frame(Kind.REFUSED, lists))):
                pass
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8 * MAX_COMPILED


async def test_compiling_and_loading_have_one_time_together(monkeypatch: pytest.MonkeyPatch) -> None:
    async def slow(peer: Peer) -> None:
        await peer.take()
        await asyncio.sleep(0.2)
        await peer.say(frame(Kind.READY))

    left: list[float] = []

    class Watched(Link):
        async def load(self, *arguments: object, timeout: float) -> None:
            left.append(timeout)
            await super().load(*arguments, timeout=timeout)  # type: ignore[arg-type]

    monkeypatch.setattr(growth, "Link", Watched)
    async with open_stage(behave, limits(load_timeout=30.0), compiler=slow):
        pass
    assert 0 < left[0] <= 29.8
