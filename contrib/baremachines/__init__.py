"""What contrib/fresh is made of.

system      a bare Debian system: packed once, unpacked for each journey, in namespaces of its own
client      how this machine reaches the registries, for the system to do the same
person      who works there: a user with a home, with or without sudo, at a terminal or not
terminal    what a person sees and types
readme      the commands that README.md tells its readers
journeys    what is tried, from the clone to the last unmount
"""
