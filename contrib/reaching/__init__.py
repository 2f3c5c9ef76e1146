"""How servents reach each other, measured: see contrib/docs/reach.md.

run     the command line, and the table
bars    what is measured, and what it must be
places  hosts, routers and servents for a measurement
reader  a process that joins, reads one file and leaves, again and again
ring    many servents in a ring, some in each process
"""
