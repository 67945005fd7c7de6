"""Writes down what happens on a subject tree that others answer: it listens, and never answers itself.

Its queue group is empty, so each nexlet that runs a clone of it sees every message.
"""

import hashlib


def handler(event, context):
    context.log.info(
        "seen",
        subject=event.subject,
        what=event.tokens[0],
        bytes=len(event.data),
        sha256=hashlib.sha256(event.data).hexdigest()[:12],
        wants_reply=bool(event.reply),
    )
    context.metrics.count("messages_seen")
