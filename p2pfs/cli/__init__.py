"""What people type and read: argv in, tables and exit statuses out.

    commands     the command as a whole: verbs by group, help, what becomes of errors
    servents     the verbs that start, keep, end and examine a servent
    verbs        the verbs that ask one which runs
    fstab        what mount(8), /etc/fstab and -o say
    trees        files of a tree, several at once
    walk         which files on this machine can be published
    options      what may stand on the command line, checked where it is typed
    completion   what the TAB key gives in bash, zsh and fish
    asker        asks a servent for a verb
    voice        says it: as text, as JSON, or not at all
    screen       tables, progress bars and `top` on a terminal
    linking    links to files, on the command line and on the desktop
    concealing invitations that no other user is to read in a list of processes
    qrcode       a line of text as a QR code
    page         what `top` shows
    layout       lines that fit a terminal of any width

Nothing heavy is imported before it is needed, so that `p2pfs status` answers at once: `screen`
only where there is a terminal, the servent only where one is started.
"""

from p2pfs.cli.commands import cli, main
from p2pfs.cli.concealing import conceal

__all__ = ["cli", "conceal", "main"]
