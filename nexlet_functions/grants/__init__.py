"""What functions were granted, on the nexlet's side: their calls, checked and done with the workload's own credentials.

    calls       one function's calls: checked, bounded, done, answered
    subjects    publishing, and requests
    kv          buckets of keys and values
    objects     object stores
    http        requests by HTTP; the call itself:
      http_requests what is asked for, and whether it was granted
      http_client   one function's: guarded on the way out and on the way back
      outwards      urls, hosts and addresses: what may be reached
      network       connections to the addresses that were looked at, and nowhere else
      resolving     names to addresses
      unpacking     gzip and deflate, within bounds
    checks      what a worker says, held to its form
    failures    how a call ends that came to nothing
    room        how much of this there may be at a time, over all functions

A call comes from a worker, which is not to be believed: `calls` and the module of its kind look at every byte of it.
What is done is done over the connection that the workload's triggers use, never over the nexlet's own.
"""
