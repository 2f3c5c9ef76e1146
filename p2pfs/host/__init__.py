"""A servent process on this machine, from its start to its end.

    lifetime     open all parts of a servent, mount it, wait for the signal that ends it
    background   start the command anew in the background, and report when it is ready
    welcome      the lines that a user sees when a servent is up
    desktop      shows failures and finished downloads: the only module that knows D-Bus
    handler      lets the desktop open links to files
    directories  the directories that look beyond the horizon
    process      what this process asks of its machine: open files and memory
    manager      reports the state of the servent to systemd
    service      the unit that makes systemd keep a servent running
    doctor       checks this machine, and advises

`lifetime` and `background` are doors of their own: the command loads the one that it needs.
"""

from p2pfs.host.doctor import examine
from p2pfs.host.handler import handler_entry, install_handler, missing_programs
from p2pfs.host.service import UserService, will_outlive_logout

__all__ = [
    "UserService",
    "examine",
    "handler_entry",
    "install_handler",
    "missing_programs",
    "will_outlive_logout",
]
