"""Consumes events: nobody waits for an answer, so what it does shows in its log and its metrics."""

from nexlet_functions.authoring import Context, Event, Reject


def handler(event: Event, context: Context):
    order = event.json()
    if not isinstance(order, dict) or "id" not in order:
        raise Reject(422, "id: an order has one")  # counted as refused, with this text in the event about it
    context.log.info("order seen", id=order["id"], attempt=event.attempt)
    context.metrics.count("orders_seen")
