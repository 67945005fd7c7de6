"""Our versions of what the standard library offers: what authors know works, and what reaches too far does not."""

from __future__ import annotations

import copy
import datetime
import math
import sys
import time
import zoneinfo
from pathlib import Path
from typing import Any

import pytest

from nexlet_sandboxes.language import preload
from nexlet_sandboxes.language.modules import Sealed
from nexlet_sandboxes.language.modules.safe import zones
from nexlet_sandboxes.language.modules.safe.timing import LEEWAY, sleeper
from nexlet_sandboxes.outcomes import LoadRefused
from tests.support.authored import RecordingHost, run


def main(body: str, *, before: str = "") -> str:
    """A program whose `main` has this body, below what `before` has."""
    lines = "\n".join(f"    {line}" for line in body.strip("\n").splitlines())
    return f"{before}\ndef main():\n{lines}\n"


WORKS: dict[str, tuple[str, object]] = {
    "dataclass": (
        """
from __future__ import annotations
from dataclasses import KW_ONLY, InitVar, asdict, astuple, dataclass, field, fields, is_dataclass, replace
from typing import ClassVar

@dataclass(order=True)
class Item:
    price: int
    tags: list[str] = field(default_factory=list)
    rate: ClassVar[int] = 3
    extra: InitVar[int] = 0
    _: KW_ONLY
    unit: str = "kg"

    def __post_init__(self, extra):
        self.price += extra

def main():
    item = Item(1, extra=1, unit="g")
    item.tags.append("new")
    return (
        asdict(item), astuple(item), [f.name for f in fields(Item)], Item(1) < Item(2), is_dataclass(item),
        replace(item, price=5, extra=0).price, str(Item(1)),
    )
""",
        (
            {"price": 2, "tags": ["new"], "unit": "g"},
            (2, ["new"], "g"),
            ["price", "tags", "unit"],
            True,
            True,
            5,
            "Item(price=1, tags=[], unit='kg')",
        ),
    ),
    "dataclass with slots": (
        """
from dataclasses import dataclass
@dataclass(slots=True)
class Point:
    x: int
    def move(self, by):
        self.x += by
        return self.x
def main():
    return Point(1).move(2), Point(1) == Point(1)
""",
        (3, True),
    ),
    "frozen dataclass": (
        """
from dataclasses import FrozenInstanceError, dataclass
@dataclass(frozen=True)
class Point:
    x: int
def main():
    try:
        Point(1).x = 2
    except FrozenInstanceError as error:
        return str(error), len({Point(1), Point(1)})
""",
        ("cannot assign to field 'x'", 1),
    ),
    "enumerations": (
        """
from enum import Enum, Flag, IntEnum, IntFlag, StrEnum, auto, unique
@unique
class Color(Enum):
    RED = auto()
    BLUE = auto()
    def lower(self):
        return self.name.lower()
class Size(StrEnum):
    BIG = auto()
class Right(Flag):
    READ = auto()
    WRITE = auto()
class Level(IntEnum):
    LOW = 1
class Bits(IntFlag):
    A = 1
    B = 2
class Text(str, Enum):
    X = "x"
def main():
    Made = Enum("Made", "ONE TWO")
    Given = IntEnum("Given", {"FIVE": 5})
    return (
        Color.RED.lower(), [c.value for c in Color], Color(2) is Color.BLUE, Color["RED"] is Color.RED,
        Size.BIG == "big", (Right.READ | Right.WRITE).value, Level.LOW + 1, (Bits.A | Bits.B) == 3, Text.X == "x",
        Made.TWO.value, Given.FIVE + 1, isinstance(Level.LOW, Enum), isinstance(1, Enum), issubclass(Level, IntEnum),
        isinstance(Color.RED, Color), isinstance(Color.RED, Size), Color.RED in Color,
    )
""",
        (
            "red",
            [1, 2],
            True,
            True,
            True,
            3,
            2,
            True,
            True,
            2,
            6,
            True,
            False,
            True,
            True,
            False,
            True,
        ),
    ),
    "classes from typing": (
        """
from typing import Generic, NamedTuple, NewType, Optional, Protocol, Type, TypedDict, TypeVar, runtime_checkable
from typing import final, overload, override, get_args, get_origin
import copy
T = TypeVar("T")
class Point(NamedTuple):
    x: int
    y: int = 2
    def sum(self):
        return self.x + self.y
class Movie(TypedDict, total=False):
    title: str
@runtime_checkable
class Goes(Protocol):
    def go(self) -> int: ...
@final
class Car:
    @override
    def go(self) -> int:
        return 1
class Box(Generic[T]):
    def __init__(self, value: T):
        self.value = value
UserId = NewType("UserId", int)
@overload
def f(x: int) -> int: ...
@overload
def f(x: str) -> str: ...
def f(x: Optional[Type[int]] = None) -> Type[int] | None:
    return x
def main():
    return (
        Point(1).sum(), copy.replace(Point(1), y=5), Movie(title="x"), isinstance(Car(), Goes), isinstance(1, Goes),
        Box[int](3).value, UserId(3), f(4), get_origin(list[int]) is list, get_args(dict[str, "Point"]),
    )
""",
        (3, (1, 5), {"title": "x"}, True, False, 3, 3, 4, True, (str, "Point")),
    ),
    "functools": (
        """
import functools
def logged(f):
    @functools.wraps(f)
    def inner(*args):
        return "logged", f(*args)
    return inner
@logged
def double(x):
    return x * 2
@functools.lru_cache(maxsize=None)
def fib(n):
    return n if n < 2 else fib(n - 1) + fib(n - 2)
@functools.singledispatch
def show(x, *, loud=False):
    return "other"
@show.register(int)
def show_int(x, *, loud=False):
    return "INT" if loud else "int"
@show.register(list)
def show_list(x):
    return "list"
@functools.total_ordering
class Version:
    def __init__(self, n):
        self.n = n
    def __eq__(self, other):
        return self.n == other.n
    def __lt__(self, other):
        return self.n < other.n
class Lazy:
    count = 0
    @functools.cached_property
    def value(self):
        self.count += 1
        return self.count
def main():
    lazy = Lazy()
    return (
        double(2), fib(30), fib.cache_info().hits > 0, show(1, loud=True), show(True), show([]), show(""),
        show.dispatch(int) is show_int, Version(1) <= Version(2), (lazy.value, lazy.value, Lazy().value),
        functools.reduce(lambda a, b: a + b, [1, 2]), functools.partial(max, 3)(1),
        sorted([3, 1], key=functools.cmp_to_key(lambda a, b: a - b)),
    )
""",
        (("logged", 4), 832040, True, "INT", "int", "list", "other", True, True, (1, 1, 1), 3, 3, [1, 3]),
    ),
    "numbers of thousands of digits": (
        """
def main():
    return 10**20000 // 10**9000 == 10**11000 and divmod(10**20000 + 7, 10**9000)[1]
""",
        7,
    ),
    "times from text": (
        """
import datetime, time
from datetime import datetime as moment
def main():
    return (
        time.strptime("2026-11-23", "%Y-%m-%d").tm_yday, moment.strptime("23 Nov 2026", "%d %b %Y").isoformat(),
        moment(2026, 11, 23, tzinfo=datetime.UTC).strftime("%j"), moment.fromisoformat("2026-11-23T10:00:00Z").hour,
    )
""",
        (327, "2026-11-23T00:00:00", "327", 10),
    ),
    "abc and contextlib": (
        """
import abc, contextlib
class Shape(abc.ABC):
    @property
    @abc.abstractmethod
    def area(self): ...
class Square(Shape):
    @property
    def area(self):
        return 4
@contextlib.contextmanager
def numbered():
    yield 5
class Thing:
    closed = False
    def close(self):
        self.closed = True
def main():
    thing = Thing()
    with numbered() as number, contextlib.closing(thing), contextlib.suppress(ValueError, KeyError):
        {}["x"]
    with contextlib.nullcontext(3) as three:
        pass
    try:
        Shape()
    except TypeError as error:
        return number, thing.closed, three, Square().area, "abstract" in str(error)
""",
        (5, True, 3, 4, True),
    ),
    "operator": (
        """
import operator
class P:
    def __init__(self, x):
        self.x = x
def main():
    p = P(P(1))
    return (
        operator.attrgetter("x.x")(p), operator.attrgetter("x.x", "x")(p)[0],
        operator.methodcaller("split", ",")("a,b"),
        operator.methodcaller("strip", chars="x") is not None, operator.itemgetter(1)("ab"), operator.add(1, 2),
    )
""",
        (1, 1, ["a", "b"], True, "b", 3),
    ),
    "copies": (
        """
import collections, copy, datetime, decimal, zoneinfo
from dataclasses import dataclass
class P:
    def __init__(self, x):
        self.x = x
@dataclass
class D:
    x: int
T = collections.namedtuple("T", "a b")
def main():
    p = P([1])
    deep, shallow = copy.deepcopy(p), copy.copy(p)
    p.x.append(2)
    when = datetime.datetime(2026, 1, 1, tzinfo=zoneinfo.ZoneInfo("UTC"))
    return (
        deep.x, shallow.x, copy.deepcopy(when) == when, copy.replace(T(1, 2), a=5), copy.replace(D(1), x=2).x,
        copy.replace(when, year=2027).year, copy.deepcopy({"a": decimal.Decimal(1)}),
    )
""",
        None,
    ),
    "the rest": (
        """
import collections, csv, datetime, decimal, io, json, string, zoneinfo
class Encoder(json.JSONEncoder):
    def default(self, o):
        return str(o)
Pair = collections.namedtuple("Pair", ["a", "b"], defaults=[2])
def main():
    rows = list(csv.DictReader(io.StringIO("a,b\\n1,2\\n")))
    with decimal.localcontext(prec=5):
        third = decimal.Decimal(1) / 3
    vienna = zoneinfo.ZoneInfo("Europe/Vienna")
    summer = datetime.datetime(2026, 7, 1, tzinfo=vienna)
    return (
        json.dumps({"d": decimal.Decimal("1.5")}, cls=Encoder), rows, str(third), Pair(1),
        string.Template("$a costs ${b}").substitute(a="tea", b=3), summer.utcoffset().total_seconds(), vienna.key,
        vienna is zoneinfo.ZoneInfo("Europe/Vienna"), "Europe/Vienna" in zoneinfo.available_timezones(),
    )
""",
        (
            '{"d": "1.5"}',
            [{"a": "1", "b": "2"}],
            "0.33333",
            (1, 2),
            "tea costs 3",
            7200.0,
            "Europe/Vienna",
            True,
            True,
        ),
    ),
}


@pytest.fixture(autouse=True, scope="module")
def preloaded() -> None:
    """Some of what works takes modules that no author's import gets: `_strptime`. Workers have them in memory."""
    preload()


@pytest.mark.parametrize("name", WORKS)
def test_what_authors_know_works(name: str) -> None:
    source, expected = WORKS[name]
    found = run(source)
    if name == "copies":
        deep, shallow, same, pair, value, year, decimals = found
        assert (deep, shallow, same, tuple(pair), value, year) == ([1], [1, 2], True, (5, 2), 2, 2027)
        assert list(decimals) == ["a"]
    else:
        assert found == expected


EXTENDING = "is not a valid" if sys.version_info >= (3, 12) else "extend"
"""From Python 3.12 on, calling an enumeration with several values looks for the member that has all of them."""

REFUSED: dict[str, tuple[str, str]] = {
    # Decorators that would write to what everybody shares.
    "dataclass of a shared class": ("import dataclasses, json\n@@dataclasses.dataclass(json.JSONEncoder)", "itself"),
    "dataclass of an instance": ("import dataclasses\n@@dataclasses.dataclass(1)", "itself"),
    "total_ordering of a shared class": (
        "import functools, fractions\n@@functools.total_ordering(fractions.Fraction)",
        "itself",
    ),
    "wraps onto a shared function": ("import functools, json\n@@functools.wraps(main)(json.loads)", "source defines"),
    "update_wrapper onto an instance": (
        "import functools\nclass H: pass\n@@functools.update_wrapper(H(), main)",
        "source defines",
    ),
    "update_wrapper with a list of attributes": (
        "import functools\ndef f(): pass\n@@functools.update_wrapper(f, main, assigned=('__globals__',))",
        "assigned",
    ),
    "abstractmethod of a shared function": ("import abc, json\n@@abc.abstractmethod(json.loads)", "source defines"),
    "runtime_checkable of a shared protocol": (
        "import typing\n@@typing.runtime_checkable(typing.SupportsInt)",
        "itself",
    ),
    # Classes from dictionaries.
    "enum with special methods": ("from enum import Enum\n@@Enum('X', {'__reduce__': 1})", "identifier"),
    "enum with a private name": ("from enum import Enum\n@@Enum('X', '_missing_')", "identifier"),
    "enum of the author's own base": (
        "from enum import Enum\nclass B(Enum): pass\n@@B('X', [('__del__', 1)])",
        "identifier",
    ),
    "enum with names of a lying kind": (
        "from enum import Enum\nclass S(str):\n    def startswith(self, p): return False\n@@Enum('X', [S('__del__')])",
        "must be a str",
    ),
    "enum with a type of the author's": (
        "from enum import Enum\nclass T: pass\n@@Enum('X', 'A', type=T)",
        "type must be",
    ),
    "enum from another module": ("from enum import Enum\n@@Enum('X', 'A', module='builtins')", "module"),
    "extending an enum with members": ("from enum import Enum\nclass C(Enum):\n    A = 1\n@@C('X', 'B')", EXTENDING),
    "extending the flags of re": ("import re\n@@re.RegexFlag('X', {'__del__': 1})", EXTENDING),
    "extending the boundaries of enum": ("import enum\n@@enum.FlagBoundary('X', {'__del__': 1})", EXTENDING),
    "enum base called with a value": ("from enum import Enum\n@@Enum(1)", "no members"),
    "a metaclass from typing": ("import typing\n@@make(typing.Type)", "takes no arguments"),
    # Names from text.
    "namedtuple with an underscore": ("import collections\n@@collections.namedtuple('T', ['_x'])", "underscore"),
    "namedtuple with code for a name": (
        "import collections\n@@collections.namedtuple('T', ['a, b=f()'])",
        "identifier",
    ),
    "namedtuple with a name of a lying kind": (
        "import collections\nclass S(str):\n    def isidentifier(self): return True\n"
        "@@collections.namedtuple('T', [S('a b')])",
        "must be a str",
    ),
    "namedtuple of another module": (
        "import collections\n@@collections.namedtuple('T', 'a', module='builtins')",
        "module",
    ),
    "attrgetter of a private name": ("import operator\n@@operator.attrgetter('a.__class__')", "begin with '_'"),
    "attrgetter of a frame": ("import operator\n@@operator.attrgetter('gi_frame')", "insides"),
    "attrgetter of a guarded name": ("import operator\n@@operator.attrgetter('obj')", "where the source names it"),
    "attrgetter of a lying name": (
        "import operator\nclass S(str):\n    def split(self, by): return ['real']\n"
        "@@operator.attrgetter(S('__class__'))",
        "must be a str",
    ),
    "methodcaller of format": ("import operator\n@@operator.methodcaller('format', 1)", "where the source names it"),
    "methodcaller of a private name": ("import operator\n@@operator.methodcaller('__reduce__')", "begin with '_'"),
    # Attributes of what we hand out.
    "writing a cached_property": (
        "import functools\nclass C(functools.cached_property): pass\nc = C(len)\ndef write():\n"
        "    c.attrname = 'x'\n@@write()",
        "cannot be changed",
    ),
    "making a logger": ("import logging\n@@logging.Logger('x')", "missing 1 required"),
    "making a logger with a tree": ("import logging\n@@logging.Logger(None, 'x')", "getLogger"),
    "copying a module": ("import copy, json\n@@copy.copy(json)", "cannot be copied"),
    "deepcopying a module": ("import copy, json\n@@copy.deepcopy([json])", "cannot be copied"),
    "copying a logger": ("import copy, logging\n@@copy.copy(logging.getLogger('x'))", "cannot be copied"),
    "deepcopying a logger's method": ("import copy, logging\n@@copy.deepcopy(logging.info)", "cannot be copied"),
    "deepcopy with a memo": ("import copy\n@@copy.deepcopy([1], {})", "positional argument"),
    # Evaluation of annotations.
    "singledispatch by annotation": (
        "import functools\n@functools.singledispatch\ndef f(x): pass\ndef g(x: 'boom()'): pass\n@@f.register(g)",
        "name the class",
    ),
    # Others.
    "zones from a file": ("import io, zoneinfo\n@@zoneinfo.ZoneInfo.from_file(io.BytesIO(b''))", "not available"),
    "a zone that is a path": ("import zoneinfo\n@@zoneinfo.ZoneInfo('../../etc/passwd')", "No time zone found"),
    "replacing an unknown field": (
        "import collections, copy\nT = collections.namedtuple('T', 'a')\n@@copy.replace(T(1), b=2)",
        "no field 'b'",
    ),
    "replacing in what has no fields": ("import copy\n@@copy.replace([1], a=2)", "does not support list"),
    "a level that is not there": ("import logging\n@@logging.getLogger().setLevel('LOUD')", "unknown level"),
    "an unknown option": ("import logging\n@@logging.info('x', order=3)", "extra="),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_reaches_too_far_is_refused(name: str) -> None:
    source, why = REFUSED[name]
    before, _, expression = source.partition("@@")
    helper = "def make(base):\n    class M(base): pass\n    return M\n"
    with pytest.raises((TypeError, ValueError, AttributeError, NotImplementedError, KeyError)) as caught:
        run(f"{helper}{before}\ndef main():\n    return {expression}\n")
    assert why in str(caught.value)


def test_an_enumeration_is_called_with_the_values_of_a_member() -> None:
    source = "from enum import Enum\nclass P(Enum):\n    A = 1, 2, 3\ndef main():\n    return P(%s).name"
    assert run(source % "(1, 2, 3)") == "A"
    if sys.version_info >= (3, 12):
        assert run(source % "1, 2, 3") == "A"
        with pytest.raises(ValueError, match=r"\(1, None\) is not a valid P"):
            run(source % "1, None")
    else:
        with pytest.raises(TypeError, match="extend"):
            run(source % "1, 2")


def test_an_enumeration_is_not_made_from_values() -> None:
    with pytest.raises(TypeError, match="takes the class's name"):
        run("from enum import Enum\ndef main():\n    return Enum('P', 'A', 'B')")


def test_the_deepcopy_of_a_bound_method_does_not_copy_what_is_behind_it() -> None:
    host = RecordingHost()
    with pytest.raises(TypeError, match="cannot be copied"):
        run(
            "import copy, logging\ndef main():\n    return copy.deepcopy({'log': [logging.getLogger('a').info]})\n",
            host,
        )
    assert host.logged == []


class TestSleep:
    def test_it_sleeps_as_long_as_it_is_told(self, monkeypatch: pytest.MonkeyPatch) -> None:
        slept: list[float] = []
        monkeypatch.setattr(time, "sleep", slept.append)
        sleep = sleeper(RecordingHost(remaining=5.0))
        sleep(0.25)
        sleep(0)
        assert slept == [0.25, 0.0]

    @pytest.mark.parametrize("asked", [5.0, 10**6, math.inf])
    def test_beyond_the_deadline_it_waits_to_be_ended(self, asked: float, monkeypatch: pytest.MonkeyPatch) -> None:
        slept: list[float] = []
        monkeypatch.setattr(time, "sleep", slept.append)
        with pytest.raises(TimeoutError, match="reached the deadline"):
            sleeper(RecordingHost(remaining=2.0))(asked)
        assert slept == [2.0 + LEEWAY]

    def test_past_the_deadline_it_only_waits_to_be_ended(self, monkeypatch: pytest.MonkeyPatch) -> None:
        slept: list[float] = []
        monkeypatch.setattr(time, "sleep", slept.append)
        with pytest.raises(TimeoutError):
            sleeper(RecordingHost(remaining=-1.0))(1)
        assert slept == [LEEWAY]

    @pytest.mark.parametrize("asked", [-1, math.nan, -math.inf])
    def test_what_is_no_time_is_refused(self, asked: float) -> None:
        with pytest.raises(ValueError, match="negative"):
            sleeper(RecordingHost())(asked)

    @pytest.mark.parametrize("asked", ["1", None, [1]])
    def test_what_is_no_number_is_refused(self, asked: Any) -> None:
        with pytest.raises(TypeError, match="number of seconds"):
            sleeper(RecordingHost())(asked)


class TestLogging:
    def logged(self, body: str, before: str = "import logging") -> list[tuple[str, str, dict[str, object]]]:
        host = RecordingHost()
        run(main(body, before=before), host)
        return host.logged

    def test_levels_texts_and_fields(self) -> None:
        assert self.logged(
            """
log = logging.getLogger("shop.prices")
logging.debug("not written")
logging.info("plain %")
log.info("%s costs %d", "tea", 3)
log.warning("%(item)s", {"item": "tea"}, extra={"order": 7})
log.error("e", exc_info=False)
log.critical(5)
log.log(25, "between")
"""
        ) == [
            ("info", "plain %", {}),
            ("info", "tea costs 3", {"logger": "shop.prices"}),
            ("warning", "tea", {"order": 7, "logger": "shop.prices"}),
            ("error", "e", {"logger": "shop.prices"}),
            ("critical", "5", {"logger": "shop.prices"}),
            ("info", "between", {"logger": "shop.prices"}),
        ]

    def test_a_script_may_begin_with_basic_config(self) -> None:
        assert self.logged("logging.basicConfig(level='WARNING', format='%(message)s')\nlogging.info('a')") == []
        assert self.logged("logging.basicConfig()\nlogging.info('a')") == [("info", "a", {})]
        with pytest.raises(TypeError, match="filename"):
            self.logged("logging.basicConfig(filename='/tmp/log')")

    def test_a_level_holds_for_what_is_below_it(self) -> None:
        assert self.logged(
            """
logging.getLogger("a").setLevel("DEBUG")
logging.getLogger("a.b").setLevel(logging.ERROR)
logging.getLogger("a.c").debug("yes")
logging.getLogger("a.b.c").warning("no")
logging.getLogger("a.b").setLevel(0)
logging.getLogger("a.b.c").debug("yes again")
logging.getLogger("ab").debug("no")
logging.getLogger("a").getChild("d").debug("child")
"""
        ) == [
            ("debug", "yes", {"logger": "a.c"}),
            ("debug", "yes again", {"logger": "a.b.c"}),
            ("debug", "child", {"logger": "a.d"}),
        ]

    def test_an_exception_is_told_with_the_authors_lines(self) -> None:
        [(level, message, fields)] = self.logged(
            """
try:
    fail()
except ZeroDivisionError:
    logging.exception("it %s", "failed")
""",
            before="import logging\ndef fail():\n    return 1 / 0\n",
        )
        assert (level, message) == ("error", "it failed")
        assert fields["exception"] == (
            '  File "function.py", line 7, in main\n  File "function.py", line 3, in fail\n'
            "ZeroDivisionError: division by zero"
        )

    def test_an_exception_is_told_without_running_the_authors_code(self) -> None:
        [(_, _, fields)] = self.logged(
            """
try:
    raise Sly(1)
except Sly as error:
    logging.error("x", exc_info=error)
""",
            before="import logging\nclass Sly(Exception):\n    def __str__(self):\n        raise SystemExit\n",
        )
        assert str(fields["exception"]).endswith("Sly: 1")

    def test_a_record_that_cannot_be_formatted_is_written_as_it_is(self) -> None:
        [(level, message, fields)] = self.logged('logging.info("%d items", "many")')
        assert (level, message) == ("info", "%d items")
        assert str(fields["format_error"]).startswith("TypeError: %d format")

    def test_a_logger_is_one_object_and_reads_as_one(self) -> None:
        assert run(
            main(
                'log = logging.getLogger("a")\n'
                'return log is logging.getLogger("a"), str(log), log.name, log.level, log.isEnabledFor(20), '
                'logging.getLogger().name, logging.getLevelName(30), logging.getLevelName("ERROR"), '
                "logging.getLevelName(7)",
                before="import logging",
            )
        ) == (True, "<Logger a (INFO)>", "a", 0, True, "root", "WARNING", 40, "Level 7")


class TestZones:
    @pytest.fixture
    def bare(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A machine of which nothing has been read yet."""
        monkeypatch.setattr(zones, "_files", {})
        monkeypatch.setattr(zones, "_made", {})
        monkeypatch.setattr(zones, "_loaded", False)

    def test_a_machine_without_a_database_has_utc(self, bare: None, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(zones, "_roots", list)
        assert zones.available_timezones() == {"UTC"}
        utc = zones.ZoneInfo("UTC")
        then = datetime.datetime(2026, 7, 1, tzinfo=utc)
        assert (then.utcoffset(), then.tzname()) == (datetime.timedelta(0), "UTC")
        with pytest.raises(zoneinfo.ZoneInfoNotFoundError, match="No time zone found with key Europe/Vienna"):
            zones.ZoneInfo("Europe/Vienna")

    def test_what_is_no_zone_is_passed_over(self, bare: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        real = next(Path(root) / "UTC" for root in zones._roots() if (Path(root) / "UTC").is_file()).read_bytes()
        for name in ("Etc/Real", "posix/Etc/Real", "right/Etc/Real", "posixrules"):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes(real)
        (tmp_path / "zone.tab").write_text("# a table")
        monkeypatch.setattr(zones, "_roots", lambda: [tmp_path / "absent", tmp_path])
        assert zones.available_timezones() == {"Etc/Real", "UTC"}

    def test_a_zone_is_one_object_until_it_is_let_go(self) -> None:
        zone = zones.ZoneInfo("UTC")
        assert zones.ZoneInfo("UTC") is zone
        assert zones.ZoneInfo.no_cache("UTC") is not zone
        zones.ZoneInfo.clear_cache(only_keys=["UTC", "Nowhere"])
        assert zones.ZoneInfo("UTC") is not zone

    def test_a_subclass_makes_its_own(self) -> None:
        class Mine(zones.ZoneInfo):
            pass

        assert isinstance(Mine("UTC"), Mine)
        assert copy.deepcopy(Mine("UTC")).key == "UTC"


class TestMemory:
    def test_suppress_does_not_hide_that_memory_ran_out(self) -> None:
        host = RecordingHost()
        assert (
            run(
                "import contextlib\ndef main():\n    with contextlib.suppress(MemoryError):\n"
                "        raise MemoryError\n    return 1\n",
                host,
            )
            == 1
        )
        assert host.memory_exceeded

    def test_suppress_lets_others_through(self) -> None:
        with pytest.raises(KeyError):
            run("import contextlib\ndef main():\n    with contextlib.suppress(ValueError):\n        {}['x']\n")


def test_a_class_cannot_be_derived_from_what_stands_for_type() -> None:
    with pytest.raises(LoadRefused):
        run("import typing\nclass M(typing.Type): pass\ndef main():\n    return M\n")


def test_what_a_class_is_made_from_never_is_type() -> None:
    assert run(
        "import typing\ndef main():\n"
        "    return typing.get_origin(typing.Type[int]), typing.get_args(list[typing.Type])[0] is typing.Type\n"
    ) == (None, True)


def test_sealed_objects_are_sealed_for_subclasses_too() -> None:
    class Loose(Sealed):
        pass

    with pytest.raises(AttributeError, match="cannot be changed"):
        Loose().x = 1
