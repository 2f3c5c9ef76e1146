r"""What the TAB key gives in bash, zsh and fish.

Each shell is given a short function that sends the line up to the cursor to `p2pfs completion
SHELL --line LINE` and gets lines of

    KIND <TAB> VALUE <TAB> HELP

`plain` is a whole word; `path` one that may go on, and is quoted: strangers choose the names in
`network/`, and nothing in one may be run by the shell that completes it. zsh and fish quote by
themselves. bash does not (of file names it quotes some dollars and brackets, and others not), so
for bash it is done here. `file` and `dir` leave it to the shell. The functions that click brings
quote nothing, and complete files badly.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator
from typing import Final, NamedTuple

import click
from click.shell_completion import CompletionItem, ShellComplete, split_arg_string

from p2pfs.control.client import Hangup, Running, choose_servent, list_directory
from p2pfs.control.paths import SubtreeName, TreePath
from p2pfs.errors import P2pfsError

TAB_S: Final = 1.5
"""The longest time that TAB blocks the shell. The next TAB shows what arrived meanwhile."""

_BASH: Final = r"""
_p2pfs() {
    local IFS=$'\n' kind value help line answer
    COMPREPLY=()
    line=${COMP_LINE:0:COMP_POINT}
    answer=$("${1/#\~/$HOME}" completion bash --line "$line" \
        --word "${COMP_WORDS[COMP_CWORD]}" 2>/dev/null) || return 0
    while IFS=$'\t' read -r kind value help; do
        case $kind in
            plain) COMPREPLY+=("$value") ;;
            path)
                COMPREPLY+=("$value")
                [[ $value == */ ]] && compopt -o nospace
                ;;
            file) compopt -o default ;;
            dir) compopt -o dirnames ;;
        esac
    done <<<"$answer"
}
complete -o nosort -F _p2pfs p2pfs
"""

_ZSH: Final = r"""
#compdef p2pfs
_p2pfs() {
    local line kind value help
    local -a words_ paths directories
    integer files=0 places=0
    line="${(j: :)words[1,CURRENT]}"
    while IFS=$'\t' read -r kind value help; do
        case $kind in
            plain) words_+=("${value//:/\\:}:$help") ;;
            path) if [[ $value == */ ]]; then directories+=("$value"); else paths+=("$value"); fi ;;
            file) files=1 ;;
            dir) places=1 ;;
        esac
    done < <("${(Q)words[1]}" completion zsh --line "$line" 2>/dev/null)
    (( $#words_ )) && _describe p2pfs words_
    (( $#paths )) && compadd -a paths
    (( $#directories )) && compadd -S '' -a directories
    (( files && ! $#paths && ! $#directories )) && _files
    (( places )) && _files -/
    return 0
}
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
    _p2pfs "$@"
else
    compdef _p2pfs p2pfs
fi
"""

_FISH: Final = r"""
function __p2pfs_complete
    set -l line (commandline -cp)
    set -l found
    p2pfs completion fish --line "$line" 2>/dev/null | while read -l -d \t kind value help
        switch $kind
            case plain path
                set found yes
                printf '%s\t%s\n' $value $help
            case file
                test -n "$found"; or __fish_complete_path (commandline -ct)
            case dir
                __fish_complete_directories (commandline -ct)
        end
    end
end
complete -c p2pfs -f -a '(__p2pfs_complete)'
"""

SCRIPTS: Final = {"bash": _BASH.lstrip(), "zsh": _ZSH.lstrip(), "fish": _FISH.lstrip()}
"""The script that a shell sources to complete `p2pfs`."""

_OF_THE_SHELL: Final = ("file", "dir")

_LATIN_BYTES: Final = re.compile("[\udca0-\udcff]")
"""What ISO-8859 prints, as Python has bytes of a name that are not UTF-8. Only the user's own names
hold such: nobody can tell us of one."""

BREAKS: Final = ":="
"""Where bash begins a new word within one, though the command gets it whole."""


def answer(cli: click.Command, line: str, word: str | None = None) -> str:
    """Return what may follow a line that ends at the cursor.

    `word` is the last word as bash has broken it; bash replaces no more than that.
    """
    *before, incomplete = _words(line)
    option = _option_of(incomplete)
    items = ShellComplete(cli, {}, "p2pfs", "").get_completions(before[1:], incomplete)
    rows = [_suggested(one, option) for one in items]
    if word is not None:
        rows = [_for_bash(row, incomplete, word) for row in rows]
    return "\n".join("\t".join(row) for row in rows if _is_shown("".join(row)))


def _is_shown(text: str) -> bool:
    """Return whether a terminal shows a text, whose bytes that are not UTF-8 are Latin letters."""
    return _LATIN_BYTES.sub("", text).isprintable()


class _Suggestion(NamedTuple):
    kind: str
    value: str
    help: str


def _suggested(item: CompletionItem, option: str) -> _Suggestion:
    value = "" if item.type in _OF_THE_SHELL else option + item.value
    return _Suggestion(item.type, value, item.help or "")


def _for_bash(row: _Suggestion, incomplete: str, word: str) -> _Suggestion:
    """Return a row with what bash is to put in place of the last word, quoted as that is."""
    gone = incomplete[: len(incomplete) - len(_unbroken(word, incomplete))]
    value = row.value.removeprefix(gone)
    return row._replace(value=_quoted(value, word[:1]) if row.kind == "path" else value)


def _quoted(text: str, quote: str) -> str:
    """Return a text that goes on where a word of bash has begun with `quote` or without."""
    if quote == "'":
        return text.replace("'", r"'\''")
    if quote == '"':
        return re.sub(r'([$`"\\])', r"\\\1", text).replace("!", "\"'!'\"")
    return re.sub(r"([^\w./@%+,-])", r"\\\1", text)


def _words(line: str) -> list[str]:
    """Return the words of a line without their quotes; the last is the one at the cursor."""
    *before, last = split_arg_string(f"{line}.")  # the dot shows where the line ends
    return [*before, last[:-1]]


def _option_of(incomplete: str) -> str:
    """Return `--option=` if that is how the word at the cursor begins."""
    option, equals, _ = incomplete.partition("=")
    return option + equals if equals and option.startswith("--") else ""


def _unbroken(word: str, incomplete: str) -> str:
    """Return the end of the word at the cursor that bash will replace."""
    last = _words(word)[-1] if word.strip(BREAKS) else ""
    return last if incomplete.endswith(last) else incomplete


def paths_below(
    subtree: SubtreeName, directory: str | None, incomplete: str
) -> Iterator[CompletionItem]:
    """Return the paths below a sub-tree that begin so, and let the shell add those on its disk.

    `directory` says which servent is asked, as for the verbs. What leads there through the
    mount is the shell's: a mount is a directory as any other.
    """
    if not incomplete.startswith(("/", "./", "../", "~", "$")):
        head, slash, start = incomplete.rpartition("/")
        for name in _names_in(subtree, directory and os.path.expanduser(directory), head):
            if name.startswith(start):
                yield CompletionItem(f"{head}{slash}{name}", type="path")
    yield CompletionItem("", type="file")


def _names_in(subtree: SubtreeName, directory: str | None, path: str) -> list[str]:
    """Return the names in a directory, with a slash after those of directories.

    Where none can be had there are none.
    """
    hangup = Hangup()
    timer = threading.Timer(TAB_S, hangup.end)
    timer.start()
    try:
        servent = choose_servent(directory)
        if subtree is SubtreeName.SHARED:
            return _names_on_disk(servent, path)
        rows, _partial = list_directory(servent, TreePath(subtree, path), hangup)
        return [row["name"] + "/" * row["is_directory"] for row in rows]
    except (P2pfsError, OSError):
        return []
    finally:
        timer.cancel()


def _names_on_disk(servent: Running, path: str) -> list[str]:
    with os.scandir(os.path.join(servent.shared_directory, path)) as entries:
        return sorted(entry.name + "/" * entry.is_dir() for entry in entries)
