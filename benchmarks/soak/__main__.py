"""`make soak SECONDS=60 SEED=1`: load and faults for so long, then the account. Ends with 1 if it does not balance."""

from __future__ import annotations

import argparse
import asyncio
import random
import shutil
import sys
from collections import Counter
from pathlib import Path

import structlog

from benchmarks.bench import environment
from benchmarks.load import Load
from benchmarks.soak.account import SLACK, Account
from benchmarks.soak.faults import Faults
from benchmarks.soak.functions import KINDS, workloads
from benchmarks.soak.generator import Generator
from benchmarks.soak.plan import PLACES, Planned, place_of, plan
from benchmarks.soak.stage import HEAL, Holdings, NotHealed, Stage, open_stage
from nexlet_functions.cli.running import loop_factory

MIB = 1024 * 1024

GROWTH = 24 * MIB
"""Bytes by which the nexlet may be larger at the end than it was before the first deployment: what an allocator keeps,
and what is kept for every subject and function there was."""

APART = 2 * SLACK
"""Seconds between two faults at least, so that what one causes is not put down to the other."""

_SHOWN = 20


def main() -> None:
    """Parse the command line, soak, print, and say by the exit code whether the account balances."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="of load (60)")
    parser.add_argument(
        "--seed", type=int, default=None, help="of everything that is chosen; chosen by chance if absent"
    )
    parser.add_argument("--place", choices=tuple(PLACES), help="where it is played; the seed's if absent")
    parser.add_argument(
        "--rate", type=float, default=2000.0, help="requests a second; 0: half of what can be had (2000)"
    )
    parser.add_argument("--every", type=float, default=2.0, help="seconds between two faults, on average (2)")
    parser.add_argument("--log", type=Path, help="file for the nexlet's log; without it, its end is shown if need be")
    given = parser.parse_args()
    seed = random.SystemRandom().randrange(1 << 31) if given.seed is None else given.seed
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))  # the node's, whose end is intended
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        place = given.place or place_of(seed)
        sys.exit(0 if runner.run(_soak(given.seconds, seed, place, given.rate, given.every, given.log)) else 1)


async def _soak(seconds: float, seed: int, place: str, rate: float, every: float, log: Path | None) -> bool:
    print("  ".join(f"{name} {value}" for name, value in environment().items()))
    async with open_stage(place) as stage:
        before = await _before(stage)
        for workload in workloads():
            await stage.deploy(workload)
        await stage.healed()
        user = stage.accounts.user("load") if stage.accounts is not None else ("", "")
        if not rate:
            rate = await asyncio.to_thread(_half, stage.urls[0], user)
        planned = plan(seed, seconds, place=place, every=every)
        print(f"\nseed {seed}: {place}, {seconds:g} s, {rate:.0f} requests a second", flush=True)
        account = Account()
        generator = Generator(stage.urls, seed, rate, account, user=user)
        faults = Faults(stage, generator)
        await generator.start()
        await _play(planned, seconds, generator, faults, account)
        await generator.finish()
        _look_for_second_runs(stage, account)
        after = await _after(stage, before, account)
        if log is not None:
            await asyncio.to_thread(shutil.copy, stage.log, log)
        problems = account.problems(faults.windows)
        _print(account, faults, generator, before, after)
        if problems:
            print(f"\nTHE ACCOUNT DOES NOT BALANCE, seed {seed}: {len(problems)} things are not explained")
            for problem in problems[:_SHOWN]:
                print(f"  {problem}")
            print(f"\nthe nexlet's log:\n{stage.log.read_text()[-4000:]}")
        else:
            print(f"\nthe account balances, seed {seed}: every one of {account.sent} requests is accounted for")
        return not problems


async def _play(planned: list[Planned], seconds: float, generator: Generator, faults: Faults, account: Account) -> None:
    began = generator.now
    generator.sending = True
    try:
        for one in planned:
            await asyncio.sleep(max(0.0, began + one.at - generator.now))
            if generator.now - began > seconds:
                break
            await faults.run(one)
            await asyncio.sleep(APART)
        await asyncio.sleep(max(0.0, began + seconds - generator.now))
    except NotHealed as error:
        account.wrong.append(f"at {generator.now:.3f} s, {faults.windows[-1].fault}: {error}")


def _half(url: str, user: tuple[str, str]) -> float:
    """Half of the requests a second that the fast function answers with 256 of them in flight."""
    with Load(url, user=user) as load:
        load.requests("soak.fast", count=2000, in_flight=256, payload=b"%016x" % (1 << 60))
        return load.requests("soak.fast", count=30_000, in_flight=256, payload=b"probe").rate / 2


def _look_for_second_runs(stage: Stage, account: Account) -> None:
    for number, count in Counter(stage.lines).items():
        if count > 1:
            account.wrong.append(f"request {number.decode()} to 'witness' was run {count} times")


async def _before(stage: Stage) -> Holdings:
    """What the nexlet holds when it has had a function, and has none."""
    first = workloads()[0]
    await stage.deploy(first)
    await stage.healed()
    await stage.stop(first.name)
    return await _settled(stage)


async def _after(stage: Stage, before: Holdings, account: Account) -> Holdings:
    try:
        for name in list(stage.deployed):
            await stage.stop(name)
    except NotHealed as error:
        account.wrong.append(str(error))
    after = await _settled(stage, before)
    for what in ("processes", "descriptors", "subscriptions"):
        then, now = getattr(before, what), getattr(after, what)
        if then != now:
            account.wrong.append(f"{what}: {then} before the first function, {now} after the last")
    if after.memory - before.memory > GROWTH:
        account.wrong.append(
            f"memory: {(after.memory - before.memory) / MIB:.1f} MiB more than before, {GROWTH / MIB:g} are tolerated"
        )
    return after


async def _settled(stage: Stage, expected: Holdings | None = None) -> Holdings:
    """What it holds once that is as expected, or does not change any more: what was stopped ends in its own time."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + HEAL
    then, since = await stage.holdings(), loop.time()
    while loop.time() < deadline:
        await asyncio.sleep(0.1)
        now = await stage.holdings()
        same = (now.processes, now.descriptors, now.subscriptions)
        if same != (then.processes, then.descriptors, then.subscriptions):
            since = loop.time()
        then = now
        if expected is None and loop.time() - since > 0.5:
            break
        if expected is not None and same == (expected.processes, expected.descriptors, expected.subscriptions):
            break
    return then


def _print(account: Account, faults: Faults, generator: Generator, before: Holdings, after: Holdings) -> None:
    print("\nfaults, in their order")
    for window in faults.windows:
        print(f"  {window.begun:8.2f} s to {window.ended:8.2f} s  {window.fault}")
    print("\nfrom the end of a fault's cause until every function answered again, seconds at most")
    for fault, times in sorted(faults.healing.items()):
        print(f"  {fault:32} {len(times):4} times  {max(times):6.2f}")
    columns = sorted({result for _, result in account.results})
    print("\nrequests by kind and result")
    print(f"  {'':10}" + "".join(f"{column:>15}" for column in columns))
    for kind in KINDS:
        counts = [account.results[kind.name, column] for column in columns]
        print(f"  {kind.name:10}" + "".join(f"{count or '':>15}" for count in counts))
    totals = account.by_result()
    print(f"  {'all':10}" + "".join(f"{totals[column]:>15}" for column in columns))
    print(f"  sent {account.sent}, accounted for {sum(totals.values())}", end="")
    print(f"; {account.late} answers after their caller had gone, {generator.held_back} requests held back")
    print("\nwhat is not as usual, and what explains it")
    for (what, fault), count in sorted(account.attribute(faults.windows).items()):
        print(f"  {count:8} {what:15} {fault or 'NOTHING'}")
    print("\nthe nexlet before its first function and after its last")
    print(f"  memory       {before.memory / MIB:8.1f} MiB {after.memory / MIB:8.1f} MiB")
    for what in ("processes", "descriptors", "subscriptions"):
        print(f"  {what:13}{getattr(before, what):8}     {getattr(after, what):8}")


if __name__ == "__main__":
    main()
