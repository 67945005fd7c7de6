"""Counts what is in the texts of many sources: one wildcard trigger, and the subject tells whose text it is."""

import re
import statistics
from collections import Counter

from nexlet_functions.authoring import Reject

WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")


def handler(event, context):
    language, path = event.tokens  # texts.*.>: one token, then all the others
    words = [word.lower() for word in WORD.findall(event.text)]
    if not words:
        raise Reject(422, "there is no word in the text")
    lengths = [len(word) for word in words]
    context.metrics.observe("words", len(words), language=language)
    return {
        "language": language,
        "document": path.replace(".", "/"),
        "words": len(words),
        "distinct": len(set(words)),
        "mean_length": round(statistics.fmean(lengths), 2),
        "median_length": statistics.median(lengths),
        "most_common": [{"word": word, "count": count} for word, count in Counter(words).most_common(3)],
    }
