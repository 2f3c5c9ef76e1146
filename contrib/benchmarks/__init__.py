"""The parts of contrib/bench, and programs that measure one thing each.

run           the command line of contrib/bench, and the order in which it measures
workshop      a temporary directory, the processes and the mounts in it; nothing outlives it
contestants   the systems that are measured side by side: p2pfs, sshfs, a bare pass-through
measures      the measures, each a function of one contestant
writing       the measures of writing: an archive of small files, and a file in small writes
crowds        the measures with several sources, and with several readers
report        figures, ratios and targets as tables and as JSON
plot          a bar chart of the figures for the README
passthrough   a program: the least that fusepy can do for a local directory
raw_link      a program: our encrypted link alone, between two processes
torrent       a program: one file between two sessions of libtorrent
distance      a program: a line of some length lies between the source and its reader
line          that line, and p2pfs at its far end
relay         a program: the line itself
far           a program: a servent at its far end
indexing      a program: what many small files cost the library
disks         a program: two disks with many small files, beside a mount in use
listings      a program: what it costs to know the names of many others
alike         a program: what a look costs at names that many have, each with another content
callbacks     a program: what `stat` and an extended attribute cost in the call-back
looks         a program: what `ls` of others' files costs, beside a bare pass-through
floods        a program: what a control message costs
mounts        a program: a hall of servents with a mount each, whose users look around
"""
