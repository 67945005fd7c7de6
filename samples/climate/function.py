"""Watches the readings that telemetry makes of frames, and warns of frost and heat; second of two functions.

Nothing calls it. Whoever publishes a frame names `readings.SITE` as where the answer goes, and telemetry's answer is
then the message that runs this function. An answer may be an error: it comes with the header `error`, and is counted.
"""


def handler(event, context):
    site = event.tokens[0]
    if "error" in event.headers:
        context.metrics.count("frames_refused", site=site)
        context.log.info("no reading", site=site, reason=event.headers["error"])
        return

    reading = event.json()
    celsius = reading["celsius"]
    if celsius <= float(context.env["FROST"]):
        context.log.warning("frost", site=site, sensor=reading["sensor"], celsius=celsius)
    elif celsius >= float(context.env["HEAT"]):
        context.log.warning("heat", site=site, sensor=reading["sensor"], celsius=celsius)
    if reading["battery_low"]:
        context.log.warning("change the battery", site=site, sensor=reading["sensor"])
