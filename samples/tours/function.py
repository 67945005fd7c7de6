"""Plans a short round trip, and takes no longer for it than its caller has: a good answer in time beats the best one.

The first tour goes to the nearest stop each time. It is then mended (2-opt: two legs that are shorter the other way
round are turned), until nothing more is found or the time runs short. `settled` says which it was.
"""

from math import dist

from nexlet_functions.authoring import Reject

RESERVE = 0.25
"""The part of the time that is kept for the answer's own way."""


def read_stops(payload):
    stops = payload.get("stops") if isinstance(payload, dict) else None
    if not isinstance(stops, list) or len(stops) < 2:
        raise Reject(422, 'stops: at least two points are expected, such as [[0, 0], [3, 4]]')
    for number, stop in enumerate(stops):
        if not isinstance(stop, list) or len(stop) != 2 or not all(isinstance(each, (int, float)) for each in stop):
            raise Reject(422, f"stops[{number}]: two numbers are expected, such as [3, 4]")
    return [tuple(stop) for stop in stops]


def nearest_first(stops):
    """A tour as indices: from the first stop always on to the nearest one that is left."""
    tour, left = [0], set(range(1, len(stops)))
    while left:
        here = stops[tour[-1]]
        tour.append(min(left, key=lambda each: (dist(here, stops[each]), each)))
        left.remove(tour[-1])
    return tour


def mend_once(stops, tour, start):
    """Turn every stretch from `start` on whose turning makes the tour shorter; whether there was one."""
    better = False
    for end in range(start + 1, len(tour)):
        a, b = stops[tour[start - 1]], stops[tour[start]]
        c, d = stops[tour[end]], stops[tour[(end + 1) % len(tour)]]
        if dist(a, c) + dist(b, d) < dist(a, b) + dist(c, d) - 1e-9:
            tour[start : end + 1] = tour[start : end + 1][::-1]
            better = True
    return better


def handler(event, context):
    reserve = context.remaining_ms() * RESERVE
    stops = read_stops(event.json())
    tour = nearest_first(stops)

    rounds, settled = 0, False
    while not settled and context.remaining_ms() > reserve:
        settled = True
        for start in range(1, len(tour)):
            if context.remaining_ms() <= reserve:
                settled = False
                break
            if mend_once(stops, tour, start):
                settled = False
        rounds += 1

    length = sum(dist(stops[here], stops[there]) for here, there in zip(tour, [*tour[1:], tour[0]]))
    context.log.info("planned", stops=len(stops), rounds=rounds, settled=settled, left_ms=context.remaining_ms())
    return {"tour": tour, "length": round(length, 3), "settled": settled}
