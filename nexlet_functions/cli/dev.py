"""`dev`: server, node and nexlet in one command, with functions deployed, invoked and watched.

Development equipment, all of it but the nexlet: the server takes anyone on this machine, and a stand-in plays the node.
Everything lives as long as the command; Ctrl-C takes it down again and leaves nothing behind.
"""

from __future__ import annotations

import asyncio
import json as json_
import shlex
import socket
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nexlet_functions.cli.completion import function_folders
from nexlet_functions.cli.exits import CommandFailed, Exit
from nexlet_functions.cli.options import Json
from nexlet_functions.cli.output import Output, problem_record, styled
from nexlet_functions.cli.own_log import set_up_logging

if TYPE_CHECKING:
    from nexlet_functions.cli.watching import LogRecord, Watch
    from nexlet_functions.control import ControlClient
    from nexlet_functions.natsio import Connection
    from nexlet_functions.nexfile import FunctionFolder
    from nexlet_functions.sandboxing import Sandboxing
    from nexlet_functions.testing.events import SampleEvent
    from nexlet_models.events import WorkloadTriggeredEvent

__all__ = ["dev", "secrets_beside"]

DEFAULT_PORT = 4222
"""Where `nexfn invoke`, `nats` and `nex` look by themselves."""

EVENT_TIMEOUT = 10.0
"""Seconds from an answer to the event about it, on a machine that is very busy; it is sent with the answer."""

GRACE = 2.0
"""Seconds that running invocations get when the command ends: someone is waiting for the prompt."""


def dev(
    folders: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[DIR...]",
            help="Function folders, or folders of function folders. [default: .]",
            show_default=False,
            autocompletion=function_folders,
        ),
    ] = None,
    *,
    once: Annotated[
        bool,
        typer.Option("--once", envvar="NEXFN_ONCE", help="End after the sample events; with 1 if one of them failed."),
    ] = False,
    port: Annotated[
        int | None,
        typer.Option(
            "--port",
            "-p",
            envvar="NEXFN_PORT",
            min=0,
            max=65535,
            help="Port of the NATS server; 0 takes a free one. [default: 4222, or a free one if that is taken]",
            show_default=False,
        ),
    ] = None,
    namespace: Annotated[
        str, typer.Option("--namespace", "-n", envvar="NEXFN_NAMESPACE", help="Namespace to deploy to.")
    ] = "demo",
    secrets_dir: Annotated[
        Path | None,
        typer.Option(
            "--secrets-dir",
            envvar="NEXFN_SECRETS_DIR",
            exists=True,
            file_okay=False,
            metavar="DIR",
            help="Folder with secrets, NAMESPACE/KEY. [default: 'secrets' in DIR or beside it]",
            show_default=False,
        ),
    ] = None,
    log_level: Annotated[
        str,
        typer.Option("--log-level", envvar="NEXFN_LOG_LEVEL", help="Of server, node and nexlet: debug, info, warning."),
    ] = "error",
    json: Json = None,
) -> None:
    """Run functions on this machine: NATS server, stand-in node and nexlet in one command.

    Deploys every function found, sends each its first sample event, shows what came back, and then stays to show
    invocations and logs until Ctrl-C. Development equipment: nothing here is protected.
    """
    from nexlet_functions.nexfile import find_functions
    from nexlet_models.subjects import valid_token

    set_up_logging(level=log_level)
    if (reason := valid_token(namespace)) is not None:
        raise CommandFailed(Exit.USAGE, "invalid-namespace", f"--namespace: '{namespace}' {reason}")
    roots = folders or [Path()]
    session = _Session(
        output=Output(json=json),
        functions=find_functions(roots),
        namespace=namespace,
        secrets=secrets_beside(roots) if secrets_dir is None else secrets_dir.absolute(),
        port=port,
        once=once,
    )
    from nexlet_functions.cli.running import run_until_signalled

    fine = run_until_signalled(session.run, on_signal=session.say_goodbye)
    if fine is None and once:
        raise typer.Exit(Exit.INTERRUPTED)
    if fine is False:
        raise typer.Exit(Exit.FAILED)


def secrets_beside(roots: Sequence[Path]) -> Path | None:
    """A `secrets` folder in one of these folders, or beside it."""
    for root in roots:
        for candidate in (root.absolute() / "secrets", root.resolve().parent / "secrets"):
            if candidate.is_dir():
                return candidate
    return None


@dataclass(frozen=True, slots=True)
class _Deployed:
    function: FunctionFolder
    workload_id: str

    @property
    def subjects(self) -> tuple[str, ...]:
        start = self.function.start
        return tuple(trigger.subject for trigger in start.subject_triggers) or (
            (self.workload_id,) if not start.triggers else ()
        )

    def answers(self, subject: str) -> bool:
        """Whether a message on that subject is answered."""
        from nexlet_models.subjects import matches

        start = self.function.start
        found = [trigger.reply for trigger in start.subject_triggers if matches(trigger.subject, subject)]
        return all(found) if found else not start.stream_triggers


class _Session:
    """One run of the command."""

    def __init__(
        self,
        *,
        output: Output,
        functions: Sequence[Path],
        namespace: str,
        secrets: Path | None,
        port: int | None,
        once: bool,
    ) -> None:
        self._output = output
        self._functions = functions
        self._namespace = namespace
        self._secrets = secrets
        self._port = port
        self._once = once
        self._url = ""
        self._width = max(len(path.resolve().name) for path in functions)

    def say_goodbye(self) -> None:
        if not self._output.json:
            self._output.record("stopping", styled(("stopping ...", "dim")))

    async def run(self, asked: asyncio.Event) -> bool:
        """Everything; whether all functions were deployed and all samples did what is expected of them.

        Args:
            asked: set when it is to end.
        """
        from nexlet_functions.cli.watching import Watch
        from nexlet_functions.control import ControlClient
        from nexlet_functions.natsio import Connection, Credentials

        async with AsyncExitStack() as stack:
            await self._start_equipment(stack)
            connection = await Connection.open(Credentials(servers=(self._url,), name="nexfn dev"))
            stack.push_async_callback(connection.close)
            watch = Watch(connection, self._output)
            watch.width = self._width
            await watch.start()
            control = ControlClient(connection.client, self._namespace, nodes=1)
            deployed, refused = await self._deploy_all(control, watch)
            failed = await self._play_samples(connection, watch, deployed)
            fine = not refused and not failed
            if self._once:
                self._summary(len(deployed), refused, failed)
                return fine
            self._ready(deployed)
            watch.live = True
            await asked.wait()
        return fine

    async def _start_equipment(self, stack: AsyncExitStack) -> None:
        from nexlet_functions.devnode.node import DevNode
        from nexlet_functions.devnode.server import EmbeddedServer, ServerNotFound
        from nexlet_functions.nexlet import Nexlet
        from nexlet_functions.settings import Settings, SettingsHolder
        from nexlet_sandboxes.probe import ADVICE
        from nexlet_sandboxes.profiles import PROFILES

        server = EmbeddedServer(port=self._choose_port())
        stack.push_async_callback(server.stop)  # first: a signal may come while it starts
        try:
            await server.start()
        except ServerNotFound as error:
            raise CommandFailed(Exit.FAILED, "no-nats-server", str(error)) from None
        except RuntimeError as error:  # which has the server's last words
            raise CommandFailed(Exit.FAILED, "nats-server-failed", str(error), "try another --port") from None
        self._url = server.url
        self._banner()
        node = await stack.enter_async_context(await DevNode.start(server.url))
        settings = Settings.model_validate(
            {
                "servers": (server.url,),
                "no_state": True,
                "secrets_dir": self._secrets,
                "grace": GRACE,
                "permit_missing_layers": tuple(ADVICE),  # on whatever machine someone writes their functions
                # What an operator may allow by name somebody here may try; what takes a flag of its own takes it.
                "defaults": {"profiles": tuple(name for name in PROFILES if name != "unsafe-dev")},
            }
        )
        nexlet = await stack.enter_async_context(await Nexlet.start(SettingsHolder(settings)))
        self._tell_missing_layers(nexlet.sandboxing)
        await nexlet.wait_registered()
        # A node takes a nexlet for healthy from its first heartbeat on, and tells nobody when that has come.
        try:
            async with asyncio.timeout(EVENT_TIMEOUT):
                while not node.registrations.healthy(settings.register_type):  # noqa: ASYNC110  # as just said
                    await asyncio.sleep(0.002)
        except TimeoutError:
            raise CommandFailed(
                Exit.FAILED,
                "nexlet-silent",
                f"the nexlet sent no heartbeat within {EVENT_TIMEOUT:g} s",
                "see what it says with --log-level info",
            ) from None

    def _choose_port(self) -> int:
        if self._port is not None:
            return self._port or -1
        with socket.socket() as probe:
            # As the server itself will: a port whose last connections linger is free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", DEFAULT_PORT))
            except OSError:
                return -1
        return DEFAULT_PORT

    # Deploying.

    async def _deploy_all(self, control: ControlClient, watch: Watch) -> tuple[list[_Deployed], int]:
        """What runs, and how many were refused."""
        from nexlet_functions.control import ControlRefused, NoAnswer, NoBid
        from nexlet_functions.nexfile import FunctionRefused, read_function

        deployed: list[_Deployed] = []
        refused = 0
        for path in self._functions:
            began = time.perf_counter()
            try:
                function = read_function(path)
                workload_id = await self._deploy(control, function)
            except FunctionRefused as error:
                self._refusal(error.name, str(error), problems=[problem_record(each) for each in error.problems])
                refused += 1
            except (ControlRefused, NoAnswer, NoBid) as error:
                self._refusal(path.resolve().name, str(error))
                refused += 1
            else:
                took = time.perf_counter() - began
                watch.names[workload_id] = function.name
                deployed.append(_Deployed(function, workload_id))
                listens = f"  {function.name:<{self._width}}  {', '.join(deployed[-1].subjects)}"
                self._output.record(
                    "deployed",
                    styled(("deployed", "green"), listens, (f"  {took * 1000:.0f} ms", "dim")),
                    name=function.name,
                    workload_id=workload_id,
                    namespace=self._namespace,
                    triggers=list(deployed[-1].subjects),
                    duration_ms=round(took * 1000, 1),
                )
        return deployed, refused

    async def _deploy(self, control: ControlClient, function: FunctionFolder) -> str:
        from nexlet_functions.shipping import workload_of

        started = await control.start(workload_of(function, self._namespace))
        return started.id

    def _refusal(self, name: str, text: str, **fields: Any) -> None:
        first, *rest = text.splitlines()
        self._output.record(
            "refused", [styled(("refused", "bold red"), "   ", first), *rest], name=name, text=text, **fields
        )

    # Samples.

    async def _play_samples(self, connection: Connection, watch: Watch, deployed: Sequence[_Deployed]) -> int:
        """Sends each function its first sample event; how many did not do what is expected."""
        from nexlet_functions.testing.events import EventRefused, sample_events

        failed = 0
        for each in deployed:
            try:
                events = sample_events(each.function.path)
            except EventRefused as error:
                self._refusal(error.name, str(error), problems=[problem_record(one) for one in error.problems])
                failed += 1
                continue
            if events:
                failed += not await self._play(connection, watch, each, events[0])
        return failed

    async def _play(self, connection: Connection, watch: Watch, deployed: _Deployed, event: SampleEvent) -> bool:
        """Whether what came back is what the sample expects."""
        from nexlet_functions.cli.invoke import answer_fields
        from nexlet_functions.natsio.errors import NatsioError
        from nexlet_functions.natsio.protocol import encode_headers

        subject = event.subject or deployed.subjects[0]
        limits = deployed.function.start.limits
        patience = limits.timeout + (limits.queue_timeout or limits.timeout) + EVENT_TIMEOUT
        ended = watch.invocation(deployed.workload_id, subject)
        watch.take_lines(deployed.workload_id)
        began = ended_at = time.perf_counter()
        fields: dict[str, Any] = {}
        body: bytes | None = None
        triggered: WorkloadTriggeredEvent | None = None
        try:
            if deployed.answers(subject):
                answer = await connection.request(
                    subject, event.payload, headers=dict(event.headers) or None, timeout=patience
                )
                fields, body = answer_fields(answer), answer.payload
            else:
                headers = encode_headers(event.headers) if event.headers else b""
                connection.publish(subject, event.payload, headers=headers)
            ended_at = time.perf_counter()
            triggered = await asyncio.wait_for(ended, patience)
            if body is None:  # without an answer, the event is when it is known to have ended
                ended_at = time.perf_counter()
        except TimeoutError:
            differences = [f"nothing was heard of the invocation within {patience:g} s"]
        except NatsioError as error:
            ended_at = time.perf_counter()
            differences = [str(error)]
        else:
            differences = event.differences(
                outcome=triggered.outcome or "",
                code=fields.get("code"),
                data=body,
                headers=fields.get("headers"),
                error=triggered.error or "",
            )
        self._played(watch, deployed, event, subject, fields, triggered, ended_at - began, differences)
        return not differences

    def _played(
        self,
        watch: Watch,
        deployed: _Deployed,
        event: SampleEvent,
        subject: str,
        fields: dict[str, Any],
        triggered: WorkloadTriggeredEvent | None,
        took: float,
        differences: Sequence[str],
    ) -> None:
        name = deployed.function.name
        outcome = triggered.outcome if triggered is not None else None
        if "json" in fields:
            shown = json_.dumps(fields["json"], ensure_ascii=False)
        else:
            shown = fields.get("text", fields.get("base64", "(no answer, as it is meant to be)"))
        lines = watch.take_lines(deployed.workload_id)
        self._output.record(
            "sample",
            [
                styled(("invoked", "bold"), f"   {name:<{self._width}}  {subject}  {_payload_text(event.payload)}"),
                styled(
                    (f"{'':10}NOT as expected", "bold red") if differences else (f"{'':10}as expected", "green"),
                    f"  {outcome or 'no outcome'}  {shown}",
                    (f"  {took * 1000:.1f} ms", "dim"),
                ),
                *(styled((f"{'':10}{line}", "red")) for line in differences),
                *(styled((f"{'':10}{line}", "dim")) for record in lines for line in _log_lines(record)),
            ],
            name=name,
            workload_id=deployed.workload_id,
            event=event.name,
            subject=subject,
            payload=_payload_text(event.payload),
            outcome=outcome,
            as_expected=not differences,
            differences=list(differences) or None,
            duration_ms=round(took * 1000, 3),
            run_ms=triggered.duration if triggered is not None else None,
            logs=[record.text for record in lines] or None,
            **fields,
        )

    # What else is said.

    def _banner(self) -> None:
        guard = (
            "Not for production: the NATS server takes anyone on this machine without a password, the node is a "
            "stand-in, and nothing outlives Ctrl-C."
        )
        self._output.record(
            "development",
            [
                styled(("nexlet-functions dev: development equipment", "bold yellow")),
                guard,
                f"NATS      {self._url}",
                f"namespace {self._namespace}",
                *([f"secrets   {self._secrets}"] if self._secrets else []),
                "",
            ],
            url=self._url,
            namespace=self._namespace,
            secrets=str(self._secrets) if self._secrets else None,
            warning=guard,
        )

    def _tell_missing_layers(self, sandboxing: Sandboxing) -> None:
        missing = sorted(sandboxing.without)
        if missing:
            self._output.record(
                "unprotected",
                [
                    styled(("this machine's sandbox lacks ", "bold yellow"), (", ".join(missing), "bold yellow")),
                    "Functions run without; 'nexfn doctor' says what that means. 'nexfn up' would not start.",
                    "",
                ],
                missing_layers=missing,
            )

    def _ready(self, deployed: Sequence[_Deployed]) -> None:
        subject, payload = self._example(deployed)
        commands = [
            f"nexfn invoke -s {self._url} {subject} {shlex.quote(payload)}",
            f"nats req -s {self._url} {subject} {shlex.quote(payload)}",
        ]
        self._output.record(
            "ready",
            [
                "",
                styled((f"ready: {len(deployed)} function{'s' if len(deployed) != 1 else ''}", "bold green"), ", try:"),
                *(f"  {command}" for command in commands),
                styled(("Ctrl-C ends all of it. Invocations and logs, as they happen:", "dim")),
                "",
            ],
            url=self._url,
            functions=len(deployed),
            commands=commands,
        )

    def _example(self, deployed: Sequence[_Deployed]) -> tuple[str, str]:
        """A message worth sending: the first sample event that is answered and is text."""
        from nexlet_functions.testing.events import EventRefused, sample_events

        for each in deployed:
            try:
                events = sample_events(each.function.path)
            except EventRefused:
                continue  # said already
            for event in events:
                subject = event.subject or each.subjects[0]
                if each.answers(subject) and not event.headers and event.payload.isascii():
                    return subject, event.payload.decode()
        return (deployed[0].subjects[0] if deployed else "SUBJECT"), ""

    def _summary(self, deployed: int, refused: int, failed: int) -> None:
        text = f"{deployed} deployed, {refused} refused, {failed} not as expected"
        self._output.record(
            "summary",
            ["", styled((text, "bold red" if refused or failed else "bold green"))],
            deployed=deployed,
            refused=refused,
            failed=failed,
        )


def _log_lines(record: LogRecord) -> list[str]:
    from nexlet_functions.cli.watching import readable

    word, _, (first, *rest) = readable(record)
    return [f"{word}  {first}", *(f"{'':{len(word)}}  {line}" for line in rest)]


def _payload_text(payload: bytes) -> str:
    text = payload.decode("utf-8", "replace")
    return text if len(text) <= 160 else f"{text[:160]}... ({len(payload)} bytes)"
