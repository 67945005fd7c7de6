"""`make bench`: every kind in short form; `make bench ARGS="throughput --seconds 10 --json"`: one of them, longer."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys

from benchmarks import (
    attributes,
    deadlines,
    deploys,
    desk,
    fairness,
    grants,
    overload,
    scale,
    streams,
    throughput,
    workers,
)
from benchmarks.bench import environment, open_bench
from nexlet_functions.cli.running import loop_factory

KINDS = ("throughput", "streams", "deploys", "deadlines", "grants", "workers", "attributes", "desk")
LONG = ("fairness", "overload", "scale")
"""Kinds that take a minute each, and are measured where they are named."""


def main() -> None:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "kinds",
        nargs="*",
        metavar="KIND",
        help=f"what to measure: {', '.join(KINDS)} (all of these), {', '.join(LONG)}",
    )
    parser.add_argument("--seconds", type=float, default=1.0, help="of one repetition of one cell (1)")
    parser.add_argument("--rounds", type=int, default=5, help="repetitions of each cell, ours and floors in turn (5)")
    parser.add_argument("--payload", type=int, default=128, help="bytes of a request (128)")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of tables")
    given = parser.parse_args()
    unknown = sorted(set(given.kinds) - set(KINDS + LONG))
    if unknown:
        parser.error(f"no such kind: {', '.join(unknown)}; there are: {', '.join(KINDS + LONG)}")
    # The loop that a nexlet has: what is measured in this process would be measured on another one.
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(_measure(given, given.kinds or list(KINDS)))


async def _measure(given: argparse.Namespace, kinds: list[str]) -> None:
    figures: dict[str, object] = {"environment": environment()}
    if not given.json:
        print("  ".join(f"{name} {value}" for name, value in environment().items()))
    if {"throughput", "deploys", "deadlines"} & set(kinds):
        async with open_bench() as bench:
            if "throughput" in kinds:
                cells = await throughput.measure(
                    bench, seconds=given.seconds, rounds=given.rounds, payload=given.payload
                )
                figures["throughput"] = [cell.as_json() for cell in cells]
                if not given.json:
                    _print_throughput(cells, given.payload)
            if "deploys" in kinds:
                deployed = await deploys.measure(bench)
                figures["deploys"] = deployed.as_json()
                if not given.json:
                    _print_deploys(deployed)
            if "deadlines" in kinds:
                late = await deadlines.measure(bench)
                figures["deadlines"] = late.as_json()
                if not given.json:
                    _print_deadlines(late)
    if "streams" in kinds:
        async with open_bench(floors=(), jetstream=True) as bench:
            pulled = await streams.measure(bench, rounds=given.rounds, payload=given.payload)
            figures["streams"] = pulled.as_json()
            if not given.json:
                _print_streams(pulled)
    if set(LONG) & set(kinds):
        async with open_bench(floors=()) as bench:
            if "fairness" in kinds:
                fair = await fairness.measure(bench, seconds=given.seconds, rounds=given.rounds)
                figures["fairness"] = [kind.as_json() for kind in fair]
                if not given.json:
                    _print_fairness(fair)
            if "overload" in kinds:
                overloaded = await overload.measure(bench)
                figures["overload"] = overloaded.as_json()
                if not given.json:
                    _print_overload(overloaded)
            if "scale" in kinds:
                scaled = await scale.measure(bench)
                figures["scale"] = [one.as_json() for one in scaled]
                if not given.json:
                    _print_scale(scaled)
    if "grants" in kinds:
        async with open_bench(floors=(), jetstream=True) as bench:
            granted = await grants.measure(bench, rounds=given.rounds)
            figures["grants"] = [one.as_json() for one in granted]
            if not given.json:
                _print_grants(granted)
    if "workers" in kinds:
        started = await workers.measure()
        figures["workers"] = started.as_json()
        if not given.json:
            _print_workers(started)
    if "attributes" in kinds:
        ratios = {}
        for name, source in attributes.CASES.items():
            plain, restricted = await asyncio.to_thread(attributes.measure, source)
            ratios[name] = restricted / plain
        figures["attributes"] = ratios
        if not given.json:
            print("\nthe language layer: time restricted, as a multiple of the same code unrestricted")
            for name, ratio in ratios.items():
                print(f"  {name:34} {ratio:.2f}")
    if "desk" in kinds:
        waited = await desk.measure()
        figures["desk"] = waited.as_json()
        if not given.json:
            _print_desk(waited)
    if given.json:
        json.dump(figures, sys.stdout, indent=2)
        print()


def _print_grants(granted: list[grants.Granted]) -> None:
    print("\na call to what a function was granted, beside the same with bare nats-py, microseconds each")
    for one in granted:
        promise = f" (at most {grants.MOST:g})" if one.kind == "kv get" else ""
        print(f"  {one.kind:20} ours {one.ours_us:6.0f}  bare {one.bare_us:6.0f}  ratio {one.ratio:.2f}{promise}")


def _print_throughput(cells: list[throughput.Cell], payload: int) -> None:
    print(f"\nrequest/reply, {payload} bytes, headers and events on; ratio to a bare nats-py responder on uvloop")
    print(
        f"  {'in flight':>9}  {'ours/s':>8}  {'uvloop/s':>8}  {'asyncio/s':>9}"
        f"  {'ratio':>6}  {'+-':>5}  {'p50 ms':>7}  {'p99 ms':>7}"
    )
    for cell in cells:
        print(
            f"  {cell.in_flight:>9}  {cell.ours:>8.0f}  {cell.floors['uvloop']:>8.0f}  {cell.floors['asyncio']:>9.0f}"
            f"  {cell.ratio:>6.2f}  {cell.ratio_mad:>5.2f}  {cell.p50_ms:>7.2f}  {cell.p99_ms:>7.2f}"
        )
    for cell in cells:
        spent = ", ".join(f"{name} {us:.1f}" for name, us in cell.cpu_us.items())
        print(f"  CPU a message at {cell.in_flight} in flight, microseconds: {spent}")


def _print_streams(pulled: streams.Pulled) -> None:
    print(f"\nmessages of a stream, {pulled.messages} at a time; ratio to a bare nats-py pull consumer on uvloop")
    print(
        f"  batches of {pulled.batch}, each acknowledged: ours {pulled.ours:.0f}/s, bare {pulled.floor:.0f}/s, "
        f"ratio {pulled.ratio:.2f} +- {pulled.ratio_mad:.2f}  (at least {streams.PROMISE:g})"
    )


def _print_fairness(kinds: list[fairness.Fairness]) -> None:
    print(f"\nan idle function among {fairness.FUNCTIONS}, beside one that is busy: p50 and p99 of its answers, ms")
    print("  (floor: bare responders, the idle and the busy ones in processes of their own)")
    for kind in kinds:
        for name, one in (("ours", kind.ours), ("floor", kind.floor)):
            print(
                f"  {kind.kind:6} {name:6} alone {one.p50_ms:.2f} {one.p99_ms:.2f}, beside it {one.busy_p50_ms:.2f} "
                f"{one.busy_p99_ms:.2f}: p99 times {one.ratio:.1f}; busy one: {one.busy_rate:.0f} answers a second"
            )


def _print_scale(scaled: list[scale.Scale]) -> None:
    print("\nfunctions that are deployed, left alone until they have no worker, and then asked one after another")
    print("  functions    start s   nexlet MiB   all MiB   grown MiB   idle CPU %   first answer p50, p99 ms")
    for one in scaled:
        print(
            f"  {one.functions:9}   {one.start_s:8.2f}   {one.nexlet_mib:10.1f}   {one.all_mib:7.1f}   "
            f"{one.grown_mib:9.1f}   {one.idle_percent:10.2f}   {one.first_p50_ms:.2f}, {one.first_p99_ms:.2f}"
        )


def _print_overload(seen: overload.Overload) -> None:
    print(f"\nten times what can be served, for {seen.seconds:.0f} s, to consumers that do not read")
    for name, outcomes in seen.outcomes.items():
        told = ", ".join(f"{count} {outcome}" for outcome, count in outcomes.items())
        print(f"  {name:6} {seen.sent[name]} sent: {told}; unaccounted {seen.unaccounted[name]}")
    print(f"  memory of the nexlet grew by {seen.growth_mib:.2f} MiB after the tenth second (less than 10)")


def _print_deploys(measured: deploys.Deploys) -> None:
    print("\nSTARTWORKLOAD to its answer, a ten-line function")
    print(
        f"  one after another: {measured.count}, median {measured.median_ms:.1f} ms, worst {measured.worst_ms:.1f} ms"
    )
    print(
        f"  side by side: {measured.together} in {measured.together_s:.2f} s, "
        f"{measured.answered_at_once} of them answered a request sent with the start's answer"
    )


def _print_deadlines(measured: deadlines.Deadlines) -> None:
    print("\nfrom the deadline of an invocation that does not end until the requester has its 504")
    print(
        f"  {measured.count} times, median {measured.median_ms:.1f} ms, p99 {measured.p99_ms:.1f} ms"
        f"  (at most {deadlines.PROMISE_MS:g} ms)"
    )


def _print_desk(measured: desk.Desk) -> None:
    print("\nat an author's desk, a process each: seconds until it ends, and of processor time")
    for each in measured.waits:
        promise = desk.PROMISES_S.get(each.what)
        print(
            f"  {each.what:22} {each.count} times, median {each.median_s:.2f}, worst {each.worst_s:.2f}, "
            f"processor {each.cpu_s:.2f}" + (f"  (at most {promise:g})" if promise is not None else "")
        )


def _print_workers(measured: workers.Workers) -> None:
    print("\na worker: from the request to the zygote until an empty program is loaded, and memory while it waits")
    for start in measured.starts:
        if start.missing:
            print(f"  {start.profile:9} cannot be had here: {start.missing}")
            continue
        median, p99 = workers.PROMISES.get(start.profile, (None, None))
        promise = ", ".join(
            f"{name} {limit:g} ms" for name, limit in (("median", median), ("p99", p99)) if limit is not None
        )
        print(
            f"  {start.profile:9} {start.count} times, median {start.median_ms:.2f} ms, p99 {start.p99_ms:.2f} ms"
            f", a function's first {start.first_ms:.2f} ms" + (f"  (at most {promise})" if promise else "")
        )
    locks = measured.locks
    if locks.missing:
        print(f"  locks: cannot be had here: {locks.missing}")
    else:
        print(
            f"  a warm call, {locks.count} times in turn, median: strict {locks.locked_us:.1f} us, "
            f"unlocked {locks.unlocked_us:.1f} us, dearer by {locks.dearer_us:.1f} us  "
            f"(at most {workers.LOCKS_US:g} us)"
        )
    if measured.idle_mib is None:
        print("  memory: the kernel lets only root look at workers")
    else:
        print(
            f"  {measured.idle} idle strict workers: {measured.idle_mib:.2f} MiB each, proportional  "
            f"(at most 1.5 MiB); the zygote {measured.zygote_mib:.1f} MiB"
        )


if __name__ == "__main__":
    main()
