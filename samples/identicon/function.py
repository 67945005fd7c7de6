"""Draws a picture for a name, the same one each time: bytes in, a PNG out.

The header says what the bytes are. A gateway in front can hand both to a browser as they come.
"""

import hashlib
import struct
import zlib

from nexlet_functions.authoring import Reject, Reply

CELLS = 5
BACKGROUND = b"\xf0\xf0\xf0"


def chunk(kind, data):
    """One part of a PNG file: length, kind, data, checksum."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(rows):
    """A picture of lines of RGB bytes."""
    header = struct.pack(">IIBBBBB", len(rows[0]) // 3, len(rows), 8, 2, 0, 0, 0)
    pixels = b"".join(b"\0" + row for row in rows)  # each line begins with its filter, and 0 is none
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")


def handler(event, context):
    if not event.data:
        raise Reject(400, "the payload is what to draw a picture for: a name, an address, any bytes")
    digest = hashlib.sha256(event.data).digest()
    colour, bits = digest[:3], digest[3:]
    scale = int(context.env["PIXELS"]) // CELLS

    rows = []
    for y in range(CELLS):
        half = [bits[y * 3 + x] % 2 for x in range(3)]
        line = b"".join((colour if on else BACKGROUND) * scale for on in [*half, half[1], half[0]])
        rows += [line] * scale
    return Reply(png(rows), headers={"Content-Type": "image/png", "ETag": f'"{digest.hex()[:16]}"'})
