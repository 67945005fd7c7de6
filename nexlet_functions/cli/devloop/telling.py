"""How `nexfn dev` reads: a record for each thing that happened, with its lines for a person."""

from __future__ import annotations

import base64
import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nexlet_functions.cli.devloop.deployments import Change, Deployed, Gone, Refused, Started, Unchanged
from nexlet_functions.cli.output import Output, problem_record, styled
from nexlet_functions.cli.watching import LogRecord, readable

if TYPE_CHECKING:
    from nexlet_functions.cli.devloop.samples import Played

__all__ = ["Telling"]

_GUARD = (
    "Not for production: the NATS server takes anyone on this machine without a password, the node is a "
    "stand-in, and nothing outlives Ctrl-C."
)


class Telling:
    """Says it.

    Attributes:
        width: of the column of names.
    """

    def __init__(self, output: Output, *, namespace: str, width: int) -> None:
        self._output = output
        self._namespace = namespace
        self.width = width

    # --- at the start ----------------------------------------------------------------------------------------------

    def banner(self, url: str, secrets: Path | None, recording: Path | None) -> None:
        """Where everything is, and what it is not for."""
        self._output.record(
            "development",
            [
                styled(("nexlet-functions dev: development equipment", "bold yellow")),
                _GUARD,
                f"NATS      {url}",
                f"namespace {self._namespace}",
                *([f"secrets   {secrets}"] if secrets else []),
                *([f"recording {recording} (what is secret is masked)"] if recording else []),
                "",
            ],
            url=url,
            namespace=self._namespace,
            secrets=str(secrets) if secrets else None,
            recording=str(recording) if recording else None,
            warning=_GUARD,
        )

    def missing_layers(self, missing: Sequence[str]) -> None:
        """What this machine's sandbox lacks; nothing where it lacks nothing."""
        if missing:
            self._output.record(
                "unprotected",
                [
                    styled(("this machine's sandbox lacks ", "bold yellow"), (", ".join(missing), "bold yellow")),
                    "Functions run without; 'nexfn doctor' says what that means. 'nexfn up' would not start.",
                    "",
                ],
                missing_layers=list(missing),
            )

    def ready(self, url: str, functions: int, example: tuple[str, str]) -> None:
        """It is up, and how to try it.

        Args:
            example: a subject and a payload worth sending.
        """
        subject, payload = example
        commands = [
            f"nexfn invoke -s {url} {subject} {shlex.quote(payload)}",
            f"nats req -s {url} {subject} {shlex.quote(payload)}",
        ]
        self._output.record(
            "ready",
            [
                "",
                styled((f"ready: {functions} function{'s' if functions != 1 else ''}", "bold green"), ", try:"),
                *(f"  {command}" for command in commands),
                styled(("What you save is deployed. Ctrl-C ends all of it. What happens, as it does:", "dim")),
                "",
            ],
            url=url,
            functions=functions,
            commands=commands,
        )

    def not_watched(self, reason: str, advice: str) -> None:
        """What is saved will not be noticed."""
        self._output.record(
            "not-watched",
            styled(("what you save is not noticed: ", "bold yellow"), f"{reason}; {advice}"),
            reason=reason,
            advice=advice,
        )

    def summary(self, deployed: int, refused: int, failed: int) -> None:
        """What it came to."""
        text = f"{deployed} deployed, {refused} refused, {failed} not as expected"
        self._output.record(
            "summary",
            ["", styled((text, "bold red" if refused or failed else "bold green"))],
            deployed=deployed,
            refused=refused,
            failed=failed,
        )

    def stopping(self) -> None:
        """Ctrl-C was seen."""
        if not self._output.json:
            self._output.record("stopping", styled(("stopping ...", "dim")))

    def left_out(self, count: int) -> str:
        """The text that says that so many records were not written."""
        if self._output.json:
            return json.dumps({"type": "left-out", "count": count}) + "\n"
        return f"{'':10}{count} lines left out: nobody read them\n"

    # --- functions -------------------------------------------------------------------------------------------------

    def change(self, change: Change) -> None:
        """What became of a folder."""
        match change:
            case Started():
                self._started(change)
            case Refused():
                self.refused(change.name, change.text, change.problems, change.kept)
            case Unchanged():
                deployed = change.deployed
                self._output.record(
                    "unchanged",
                    styled(("unchanged", "green"), f"  {deployed.function.name} is again as it runs"),
                    name=deployed.function.name,
                    workload_id=deployed.workload_id,
                )
            case Gone():
                self._gone(change)

    def _started(self, started: Started) -> None:
        deployed, took = started.deployed, f"{started.seconds * 1000:.0f} ms"
        name, subjects = deployed.function.name, ", ".join(deployed.triggers)
        self.width = max(self.width, len(name))
        if started.replaced:
            line = styled(("redeployed", "green"), f" {name} in {took}", (f"  {subjects}", "dim"))
        else:
            line = styled(("deployed", "green"), f"  {name:<{self.width}}  {subjects}", (f"  {took}", "dim"))
        self._output.record(
            "redeployed" if started.replaced else "deployed",
            [line, *_indented(started.trouble)],
            name=name,
            workload_id=deployed.workload_id,
            namespace=self._namespace,
            triggers=list(deployed.triggers),
            replaced=list(started.replaced) or None,
            duration_ms=round(started.seconds * 1000, 1),
            trouble=started.trouble or None,
        )

    def refused(self, name: str, text: str, problems: Sequence[Any] = (), kept: Deployed | None = None) -> None:
        """Something of a function cannot be used; what runs of it all the same is `kept`."""
        first, *rest = text.splitlines()
        kept_line = [styled(("the version before it goes on", "dim"))] if kept is not None else []
        self._output.record(
            "refused",
            [styled(("refused", "bold red"), "   ", first), *rest, *kept_line],
            name=name,
            text=text,
            problems=[problem_record(each) for each in problems] or None,
            goes_on=kept.workload_id if kept is not None else None,
        )

    def _gone(self, gone: Gone) -> None:
        name = gone.deployed.function.name
        self._output.record(
            "removed",
            [styled(("removed", "yellow"), f"   {name}, whose folder is gone"), *_indented(gone.failure)],
            name=name,
            workload_id=gone.deployed.workload_id,
            trouble=gone.failure or None,
        )

    def played(self, played: Played) -> None:
        """A sample event, and what came of it."""
        name, fields = played.deployed.function.name, played.answer
        outcome = played.triggered.outcome if played.triggered is not None else None
        if "json" in fields:
            shown = json.dumps(fields["json"], ensure_ascii=False)
        else:
            shown = fields.get("text", fields.get("base64", "(no answer, as it is meant to be)"))
        payload = _payload_text(played.event.payload)
        verdict = (f"{'':10}NOT as expected", "bold red") if played.differences else (f"{'':10}as expected", "green")
        self._output.record(
            "sample",
            [
                styled(("invoked", "bold"), f"   {name:<{self.width}}  {played.subject}  {payload}"),
                styled(verdict, f"  {outcome or 'no outcome'}  {shown}", (f"  {played.seconds * 1000:.1f} ms", "dim")),
                *(styled((f"{'':10}{line}", "red")) for line in played.differences),
                *(styled((f"{'':10}{line}", "dim")) for record in played.logs for line in _log_lines(record)),
            ],
            name=name,
            workload_id=played.deployed.workload_id,
            event=played.event.name,
            subject=played.subject,
            payload=payload,
            outcome=outcome,
            as_expected=not played.differences,
            differences=list(played.differences) or None,
            duration_ms=round(played.seconds * 1000, 3),
            run_ms=played.triggered.duration if played.triggered is not None else None,
            logs=[record.text for record in played.logs] or None,
            **fields,
        )

    # --- recording -------------------------------------------------------------------------------------------------

    def recorded(self, function: str, file: Path) -> None:
        """An invocation was kept."""
        self._output.record(
            "recorded",
            styled(("recorded", "cyan"), f"  {function:<{self.width}}  ", (str(file), "dim")),
            name=function,
            file=str(file),
        )

    def not_recorded(self, function: str, reason: str) -> None:
        """The first of those that were not kept for this reason."""
        self._output.record(
            "not-recorded",
            styled(("not recorded", "yellow"), f"  {function}: {reason}; more like it are counted, not told"),
            name=function,
            reason=reason,
        )


def _indented(text: str) -> list[Any]:
    return [styled((f"{'':10}{line}", "red")) for line in text.splitlines()]


def _log_lines(record: LogRecord) -> list[str]:
    word, _, (first, *rest) = readable(record)
    return [f"{word}  {first}", *(f"{'':{len(word)}}  {line}" for line in rest)]


def _payload_text(payload: bytes) -> str:
    """A payload for a terminal; what is no text there as base64, as it would stand in a sample event."""
    text = payload.decode("utf-8", "replace")
    if not text.replace("\n", " ").replace("\t", " ").isprintable() or "\ufffd" in text:
        text = base64.b64encode(payload).decode()
    return text if len(text) <= 160 else f"{text[:160]}... ({len(payload)} bytes)"
