"""Our versions of what the standard library offers in a form that reaches too far.

Each keeps the signature and the behaviour that authors know, and leaves out the part that leads elsewhere. Where
nothing useful would remain, the table leaves the name out instead and says what to write.
"""
