"""A function whose author wants to know the types: read by type checkers, and run by a worker, as it stands."""

from typing import Any

from nexlet_functions.authoring import (
    CallFailed,
    Context,
    Entry,
    Event,
    KeyValue,
    Message,
    NotFound,
    Objects,
    PubAck,
    Reject,
    Reply,
    StoredObject,
)


def handler(event: Event, context: Context) -> Reply:
    subject: str = event.subject
    data: bytes = event.data
    asked: dict[str, Any] = event.json()
    tokens: list[str] = event.tokens
    attempt: int = event.attempt
    if "name" not in asked:
        raise Reject(422, "name: who is it?")
    left: int = context.remaining_ms()
    context.log.info("asked", subject=subject, size=len(data), left=left > 0)
    context.metrics.count("asked", 1, kind="typed")
    greeting: str = context.env.get("GREETING", "Hello")
    kept = remembered(context.kv("typed"), asked["name"])
    stored = whole(context.objects("typed"))
    message: Message = context.request("typed.ask", {"name": asked["name"]}, headers={"For": "typed"})
    acknowledged: PubAck | None = context.publish("typed.done", message.data)
    return Reply(
        {"greeting": greeting, "kept": kept, "stored": stored, "tokens": tokens, "attempt": attempt},
        headers={"Acknowledged": str(acknowledged is not None), "Said": message.text},
    )


def remembered(bucket: KeyValue, name: str) -> int:
    try:
        entry: Entry = bucket.get("count")
    except NotFound:
        return bucket.create("count", "1")
    try:
        return bucket.update("count", str(int(entry.text) + 1), entry.revision)
    except CallFailed as error:
        raise Reject(503, f"{name}: {error}") from error


def whole(store: Objects) -> str:
    store.put("a.txt", "Ada", description="somebody")
    found: StoredObject = store.get("a.txt")
    return found.text + str(found.info.size)
