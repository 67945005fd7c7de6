"""What a nexlet shows of itself, to operators and to their machines.

    catalog      every metric: name, kind, labels, meaning          prometheus   the same as Prometheus reads it
    figures      what is counted, read where it is counted          feed         the same for each function, on NATS
    health       lives it, is it ready                              tracing      a span for each invocation
    http         a small server for the two on the right            status       all of it, for one nexlet

Nothing here is on the way of a message but additions to lists that are there anyway; whoever asks pays for the rest.
"""
