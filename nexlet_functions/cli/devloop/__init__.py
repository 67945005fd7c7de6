"""What `nexfn dev` is made of, an idea a file; the command itself is `nexlet_functions.cli.dev`.

- `equipment`: server, stand-in node and nexlet, for as long as the command lives.
- `folders`: the function folders below what was named, and whether something in them was saved.
- `saves`: tells when there may be something new in them.
- `deployments`: what runs of each folder; brings that up to what the folders say.
- `board`: how the functions fare, as a table or as lines.
- `samples`: sends sample events and says what came back.
- `spool`: standard output that holds up no function when nobody reads it.
- `telling`: how all of it reads.
"""
