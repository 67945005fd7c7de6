"""The nexlet's own log: structlog on standard error, as text on a terminal and as JSON lines anywhere else.

Set up by the commands, and by nothing else. What other libraries log through Python's logging takes the same way.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Mapping
from typing import Any

import structlog

from nexlet_functions.cli.output import plain

__all__ = ["Speaker", "set_up_logging"]


class Speaker:
    """Who logs: the ids that stand on every line, as soon as there are any.

    Not a context variable: much of what is logged is found in callbacks that were registered before anybody had an id.

    Attributes:
        ids: asked for each line; an empty id is left out, and one that the line says itself goes before it.
    """

    def __init__(self) -> None:
        self.ids: Callable[[], Mapping[str, str]] = dict

    def __call__(self, _: object, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        """A processor of structlog."""
        for name, value in self.ids().items():
            if value:
                event.setdefault(name, value)
        return event


def set_up_logging(
    *, level: str = "info", levels: Mapping[str, str] | None = None, form: str = "auto", speaker: Speaker | None = None
) -> None:
    """Send every log line to standard error.

    Args:
        level: debug, info, warning or error: what is below is left out.
        levels: the same for single loggers and those below them.
        form: auto, text or json.
        speaker: whose ids are to stand on every line; None where nobody has any.
    """
    text = sys.stderr.isatty() if form == "auto" else form == "text"
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        speaker or Speaker(),
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
    ]
    rendered: list[Any] = (
        [structlog.processors.ExceptionRenderer(), _without_controls, _console()]
        if text
        # Without the values of local variables, which structlog shows by default: credentials are among them.
        else [
            structlog.processors.ExceptionRenderer(structlog.tracebacks.ExceptionDictTransformer(show_locals=False)),
            structlog.processors.JSONRenderer(default=str),
        ]
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendered],
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # nats-py logs what its error callback is told as well; we log that ourselves, with the place it belongs to.
    logging.getLogger("nats").setLevel(logging.CRITICAL)
    for name, its in (levels or {}).items():
        logging.getLogger(name).setLevel(its.upper())
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )


def _console() -> structlog.dev.ConsoleRenderer:
    return structlog.dev.ConsoleRenderer(
        colors=sys.stderr.isatty(), timestamp_key="time", exception_formatter=structlog.dev.plain_traceback
    )


def _without_controls(_: object, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """What came from elsewhere must not steer the terminal."""
    return {key: plain(value) if isinstance(value, str) else value for key, value in event.items()}
