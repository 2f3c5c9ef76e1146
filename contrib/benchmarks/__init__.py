"""What contrib/bench is made of.

workshop      a temporary directory, the processes and the mounts in it; nothing outlives it
contestants   the systems that are measured side by side: p2pfs, sshfs, a bare pass-through
measures      what is measured, each as a function of one contestant
crowds        the same with several sources, and with several readers
report        figures, ratios and targets as tables and as JSON
passthrough   a program: the least that fusepy can do for a local directory
raw_link      a program: our encrypted link alone, between two processes
distance      a program: the same with a line of some length between the source and its reader
relay         a program: that line
far           a program: a servent at its far end
indexing      a program: what many small files cost the library
looks         a program: what `ls` of others' files costs, beside a bare pass-through
mounts        a program: a hall of servents with a mount each, whose users look around
"""
