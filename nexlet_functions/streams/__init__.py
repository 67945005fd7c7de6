"""JetStream triggers: messages that a stream keeps until a function has handled them.

    consumers      the durable consumer of a trigger: looked for, compared, made where it is missing
    puller         one trigger's messages: taken as the workers have room, and what is in hand kept alive
    pulls          what its consumer was asked for and has not given yet, and what it says of that
    deliveries     one message in hand, and what becomes of it when its invocation has ended
    returned       what a stop gave back, which is no attempt
    letters        dead letters: their headers, written and read back
    dead           the stream that keeps dead letters: looked through, sent back from, thrown away from
    streams        all stream triggers of one function, from its start to its end
    api            questions to JetStream, and its errors

Messages reach the function's pool as any other do, as calls of the same dispatcher; what is different is that each has
an end which the stream is told: done, again after a pause, or given up. docs/delivery.md says what that promises.
"""
