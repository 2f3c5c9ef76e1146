"""What people type and read: argv in, tables and exit statuses out.

    commands   argv -> Config -> a verb; the only module that prints
    fstab      what mount(8), /etc/fstab and -o say
    screen     tables, progress bars and `top` on a terminal
    wording    values as people read them

`commands` loads `screen` only where there is a terminal: it takes longer than all the rest.
"""

from p2pfs.cli.commands import main

__all__ = ["main"]
