"""What functions were granted, on the nexlet's side: their calls, checked and done with the workload's own credentials.

    calls       one function's calls: checked, bounded, done, answered
    subjects    publishing, and requests
    kv          buckets of keys and values
    objects     object stores
    checks      what a worker says, held to its form
    failures    how a call ends that came to nothing
    room        how much of this there may be at a time, over all functions

A call comes from a worker, which is not to be believed: `calls` and the module of its kind look at every byte of it.
What is done is done over the connection that the workload's triggers use, never over the nexlet's own.
"""
