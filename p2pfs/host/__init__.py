"""A servent process on this machine, from its start to its end.

    lifetime     open all parts of a servent, mount it, wait for the signal that ends it
    background   start the command anew in the background, and report when it is ready
    welcome      what a person needs when a servent is up
    desktop      tells failures as notifications: the only module that knows D-Bus
    handler      lets the desktop open links to files
    manager      tells systemd how the servent is
    service      the unit that makes systemd keep a servent running
    doctor       look for what keeps p2pfs from working here, and say what to do

`lifetime` and `background` are doors of their own: the command loads the one that it needs.
"""

from p2pfs.host.doctor import examine
from p2pfs.host.handler import handler_entry, install_handler
from p2pfs.host.service import UserService, will_outlive_logout

__all__ = ["UserService", "examine", "handler_entry", "install_handler", "will_outlive_logout"]
