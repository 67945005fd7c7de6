"""The soak: a mixed load with things breaking, and an account of every request. `make soak SECONDS=60 SEED=1`.

functions   what is asked: kinds of functions, and which answers each may give
generator   the load, over one raw connection
plan        which faults come when, from the seed alone
faults      how each is done, on a stage
stage       server, proxy, node, nexlet
account     the oracle: what became of every request, and what explains it
"""
