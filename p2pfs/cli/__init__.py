"""The command line: argv in, tables and exit statuses out.

    commands     the command as a whole: verbs by group, help, errors
    servents     the verbs that start, keep, end and examine a servent
    verbs        the verbs that ask a running servent
    fstab        calls by mount(8), lines of /etc/fstab, and -o
    trees        downloads and uploads of whole trees, several files at once
    walk         which files on this machine can be published
    options      options and their types, checked where they are typed
    completion   completion for bash, zsh and fish
    asker        sends a verb to a servent and returns its result
    voice        prints: as text, as JSON, or nothing
    screen       tables, progress bars and `top` on a terminal
    linking    links to files, on the command line and on the desktop
    concealing keeps invitations out of the list of processes
    qrcode       a line of text as a QR code
    page         the page of `top`
    layout       lines that fit a terminal of any width

Nothing heavy is imported before it is needed, so that `p2pfs status` answers at once: `screen`
only where there is a terminal, the servent only where one is started.
"""

from p2pfs.cli.commands import cli, main
from p2pfs.cli.concealing import conceal

__all__ = ["cli", "conceal", "main"]
