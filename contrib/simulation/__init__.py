"""Networks of up to ten thousand servents in memory: what a search finds, costs and takes.

graph        networks that grow as ours do, and their shape
shares       what the servents share, and what people look for
network      the real routers and searches over one heap of messages, on virtual time
hall         real servents in memory, whose people look around and publish
others       flooding, expanding rings, random walkers, QRP with dynamic querying
report       tables in Markdown and charts in SVG
run          the command
"""
