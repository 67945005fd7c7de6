"""Reads the binary frames of field sensors; first of two functions, see climate beside it.

A frame is 12 bytes, big-endian: version (1), flags (bit 0: battery low), sensor number (2), seconds since 1970 (4),
temperature in hundredths of a degree (2, signed), then a CRC-16 of all that (2). The radio loses bits, so the checksum
decides before anything is believed.
"""

import binascii
import struct
from datetime import datetime, timezone

from nexlet_functions.authoring import Reject, Reply

FRAME = struct.Struct(">BBHIh")
VERSION = 1


def handler(event, context):
    size = FRAME.size + 2
    if len(event.data) != size:
        raise Reject(400, f"a frame is {size} bytes, this one has {len(event.data)}")
    body, (checksum,) = event.data[:-2], struct.unpack(">H", event.data[-2:])
    expected = binascii.crc_hqx(body, 0xFFFF)
    if checksum != expected:
        raise Reject(400, f"the checksum is {checksum:#06x}, of these bytes it would be {expected:#06x}")
    version, flags, number, seconds, hundredths = FRAME.unpack(body)
    if version != VERSION:
        raise Reject(422, f"frames of version {VERSION} are read here, this one says {version}")

    site = event.tokens[0]
    reading = {
        "site": site,
        "sensor": number,
        "at": datetime.fromtimestamp(seconds, timezone.utc).isoformat(),
        "celsius": hundredths / 100,
        "battery_low": bool(flags & 1),
    }
    context.metrics.gauge("celsius", reading["celsius"], site=site, sensor=str(number))
    return Reply(reading, headers={"Content-Type": "application/json"})
