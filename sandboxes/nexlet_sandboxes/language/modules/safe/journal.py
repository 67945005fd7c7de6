"""`logging`, as far as a function needs it: loggers and levels. Where the lines go is the platform's business.

There are no handlers, formatters or configuration: each record goes to the host with its level, its text, and the
fields of `extra`.
"""

from __future__ import annotations

import builtins
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from nexlet_sandboxes.language.explain import MAX_FRAMES, Explainer
from nexlet_sandboxes.language.modules.proxies import Sealed
from nexlet_sandboxes.texts import text_of

if TYPE_CHECKING:
    from nexlet_sandboxes.language.host import Host

__all__ = ["LEVELS", "NAMES", "Logger", "journal"]

LEVELS = {"NOTSET": 0, "DEBUG": 10, "INFO": 20, "WARNING": 30, "ERROR": 40, "CRITICAL": 50}
_ALIASES = {"WARN": 30, "FATAL": 50}
_METHODS = ("debug", "info", "warning", "error", "exception", "critical", "fatal", "log")
NAMES = (*LEVELS, *_ALIASES, "Logger", "basicConfig", "getLogger", "getLevelName", *_METHODS)
"""What `import logging` gives."""
_ROOT_LEVEL = LEVELS["INFO"]


class _Tree:
    """The loggers of one worker, with the host that their lines go to."""

    __slots__ = ("host", "levels", "loggers")

    def __init__(self, host: Host) -> None:
        self.host = host
        self.loggers: dict[str, Logger] = {}
        self.levels: dict[str, int] = {"": _ROOT_LEVEL}

    def logger(self, name: str) -> Logger:
        found = self.loggers.get(name)
        if found is None:
            found = self.loggers[name] = Logger(self, name)
        return found

    def level_of(self, name: str) -> int:
        while name:
            level = self.levels.get(name, 0)
            if level:
                return level
            name = name.rpartition(".")[0]
        return self.levels[""]


class Logger(Sealed):
    """Writes records to the function's log. Get one with `logging.getLogger(name)`."""

    __slots__ = ("__name", "__tree")
    __name: str
    __tree: _Tree

    def __init__(self, tree: _Tree, name: str) -> None:
        if not isinstance(tree, _Tree):
            raise TypeError("loggers are made by logging.getLogger(name)")
        object.__setattr__(self, "_Logger__tree", tree)
        object.__setattr__(self, "_Logger__name", name)

    @property
    def name(self) -> str:
        """The logger's name, "root" for the one without."""
        return self.__name or "root"

    @property
    def level(self) -> int:
        """The level set on this logger itself; 0 where the one above decides."""
        return self.__tree.levels.get(self.__name, 0)

    def __repr__(self) -> str:
        return f"<Logger {self.name} ({_level_name(self.getEffectiveLevel())})>"

    def setLevel(self, level: int | str) -> None:
        """Lets records of this level and above through.

        Raises:
            ValueError, TypeError: there is no such level.
        """
        number = _level(level)
        # The root has nobody above it to ask: unset, it lets everything through, as in the standard library.
        self.__tree.levels[self.__name] = number

    def getEffectiveLevel(self) -> int:
        """The level that decides for this logger: its own, or that of the nearest above it."""
        return self.__tree.level_of(self.__name)

    def isEnabledFor(self, level: int) -> bool:
        """Whether a record of this level would be written."""
        return level >= self.__tree.level_of(self.__name)

    def getChild(self, suffix: str) -> Logger:
        """The logger of this name within this one."""
        return self.__tree.logger(f"{self.__name}.{_name(suffix)}" if self.__name else _name(suffix))

    def debug(self, msg: object, *args: object, **options: Any) -> None:
        """Writes `msg % args` at level DEBUG. Options: `extra` (fields), `exc_info`."""
        self.__write(10, msg, args, options)

    def info(self, msg: object, *args: object, **options: Any) -> None:
        """Writes `msg % args` at level INFO. Options: `extra` (fields), `exc_info`."""
        self.__write(20, msg, args, options)

    def warning(self, msg: object, *args: object, **options: Any) -> None:
        """Writes `msg % args` at level WARNING. Options: `extra` (fields), `exc_info`."""
        self.__write(30, msg, args, options)

    def error(self, msg: object, *args: object, **options: Any) -> None:
        """Writes `msg % args` at level ERROR. Options: `extra` (fields), `exc_info`."""
        self.__write(40, msg, args, options)

    def exception(self, msg: object, *args: object, **options: Any) -> None:
        """Writes `msg % args` at level ERROR with the exception that is being handled."""
        self.__write(40, msg, args, {"exc_info": True, **options})

    def critical(self, msg: object, *args: object, **options: Any) -> None:
        """Writes `msg % args` at level CRITICAL. Options: `extra` (fields), `exc_info`."""
        self.__write(50, msg, args, options)

    fatal = critical

    def log(self, level: int, msg: object, *args: object, **options: Any) -> None:
        """Writes `msg % args` at a level given by number."""
        if not isinstance(level, int):
            raise TypeError("level must be an integer")
        self.__write(int(level), msg, args, options)

    def __write(self, level: int, msg: object, args: tuple[object, ...], options: Mapping[str, Any]) -> None:
        unknown = set(options) - {"extra", "exc_info", "stack_info", "stacklevel"}
        if unknown:
            raise TypeError(f"unexpected keyword argument {min(unknown)!r}; fields go into extra={{...}}")
        if not self.isEnabledFor(level):
            return
        fields: dict[str, object] = {}
        extra = options.get("extra")
        if extra is not None:
            fields.update({text_of(key): value for key, value in dict(extra).items()})
        if self.__name:
            fields["logger"] = self.__name
        raised = _raised(options.get("exc_info"))
        if raised is not None:
            fields["exception"] = _describe(raised)
        self.__tree.host.log(_level_name(level).lower(), _text(msg, args, fields), fields)


Logger.__module__ = "builtins"  # its text names no module of ours, and not the real `logging`, which it is not


def journal(host: Host) -> dict[str, object]:
    """What `import logging` gives: `getLogger`, the root logger's methods, and the levels."""
    tree = _Tree(host)
    root = tree.logger("")

    def getLogger(name: str | None = None) -> Logger:
        """The logger of that name, always the same one; without a name the root."""
        return tree.logger("" if not name or name == "root" else _name(name))

    def basicConfig(
        *,
        level: int | str | None = None,
        format: str | None = None,  # noqa: A002 - the standard arguments, which scripts begin with
        datefmt: str | None = None,
        style: str = "%",
        force: bool = False,
    ) -> None:
        """Sets the level of the root logger. How lines look is the platform's business, so the rest has no effect."""
        if level is not None:
            root.setLevel(level)

    def getLevelName(level: int | str) -> int | str:
        """The name of a level given by number, and the number of one given by name."""
        if isinstance(level, str):
            return _level(level)
        return _level_name(level, exact=True)

    return {
        **LEVELS,
        **_ALIASES,
        "Logger": Logger,
        "basicConfig": basicConfig,
        "getLogger": getLogger,
        "getLevelName": getLevelName,
        **{name: getattr(root, name) for name in _METHODS},
    }


def _name(name: object) -> str:
    if type(name) is not str:
        raise TypeError("a logger's name must be a str")
    return name


def _level(level: int | str) -> int:
    if type(level) is str:
        number = LEVELS.get(level, _ALIASES.get(level))
        if number is None:
            raise ValueError(f"unknown level: {level!r}; there are {', '.join(LEVELS)}")
        return number
    if not isinstance(level, int):
        raise TypeError(f"level must be an integer or the name of one, not {type(level).__name__}")
    return int(level)


def _level_name(level: int, *, exact: bool = False) -> str:
    for name, number in LEVELS.items():
        if number == level:
            return name
    if exact:
        return f"Level {level}"
    # The host knows five levels: one in between counts as the one below it.
    return next((name for name, number in reversed(LEVELS.items()) if 0 < number <= level), "DEBUG")


def _text(msg: object, args: tuple[object, ...], fields: dict[str, object]) -> str:
    template = text_of(msg)
    if not args:
        return template
    values: object = args
    if len(args) == 1 and isinstance(args[0], Mapping) and args[0]:
        values = args[0]
    try:
        return template % values
    except (TypeError, ValueError, KeyError) as error:
        # As in the standard library, a record that cannot be formatted does not end what it was to tell of.
        fields["format_error"] = Explainer().summary(error)
        return template


def _raised(exc_info: object) -> BaseException | None:
    if not exc_info:
        return None
    if isinstance(exc_info, BaseException):
        return exc_info
    if isinstance(exc_info, tuple) and len(exc_info) == 3 and isinstance(exc_info[1], BaseException):
        return exc_info[1]
    return sys.exc_info()[1]


def _describe(raised: BaseException) -> str:
    """The author's own frames, outermost first, and the exception in one line. Nothing of the author's runs for it."""
    frames = []
    trace = raised.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        if trace.tb_frame.f_builtins is not builtins.__dict__:
            frames.append(f'  File "{code.co_filename}", line {trace.tb_lineno}, in {code.co_name}')
        trace = trace.tb_next
    if len(frames) > MAX_FRAMES:
        frames[MAX_FRAMES // 2 : -MAX_FRAMES // 2] = [f"  ... {len(frames) - MAX_FRAMES} more"]
    return "\n".join([*frames, Explainer().summary(raised)])
