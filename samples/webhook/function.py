"""Takes webhooks that a gateway passes on, and believes only those that are signed with the shared secret.

The sender signs `TIMESTAMP.BODY` with HMAC-SHA256 and sends both in headers, as Stripe, Slack and others do.
"""

import hashlib
import hmac

from nexlet_functions.authoring import Reject, Reply


def handler(event, context):
    timestamp = event.headers.get("X-Timestamp", "")
    signature = event.headers.get("X-Signature", "")
    if not timestamp or not signature:
        raise Reject(401, "X-Timestamp and X-Signature are expected")

    signed = timestamp.encode() + b"." + event.data
    expected = hmac.new(context.env["SIGNING_KEY"].encode(), signed, hashlib.sha256).hexdigest()
    if not hmac.compare_digest(expected, signature):
        context.log.warning("bad signature", source=event.tokens[0])
        raise Reject(401, "the signature does not fit")

    source = event.tokens[0]
    kind = event.json().get("type", "unknown")
    context.log.info("accepted", source=source, kind=kind)
    return Reply({"accepted": kind}, headers={"X-Source": source})
