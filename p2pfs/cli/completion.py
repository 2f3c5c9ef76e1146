r"""What the TAB key gives in bash, zsh and fish.

Each shell is given a short function that sends the line up to the cursor to `p2pfs completion
SHELL --line LINE` and gets lines of

    KIND <TAB> VALUE <TAB> HELP

`plain` is a whole word, `path` one that may go on, and is quoted as a file name is: strangers
choose the names in `network/`, and nothing in one may be run by the shell that completes it.
`file` and `dir` leave it to the shell. The functions that click brings do not quote, and
leave files to nobody.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import click
from click.shell_completion import CompletionItem, ShellComplete, split_arg_string

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
                compopt -o filenames
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
    (( $#paths )) && compadd -f -a paths
    (( $#directories )) && compadd -f -S '' -a directories
    (( files )) && _files
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
    p2pfs completion fish --line "$line" 2>/dev/null | while read -l -d \t kind value help
        switch $kind
            case plain path
                printf '%s\t%s\n' $value $help
            case file
                __fish_complete_path (commandline -ct)
            case dir
                __fish_complete_directories (commandline -ct)
        end
    end
end
complete -c p2pfs -f -a '(__p2pfs_complete)'
"""

SCRIPTS: Final = {"bash": _BASH.lstrip(), "zsh": _ZSH.lstrip(), "fish": _FISH.lstrip()}
"""What a shell must read to complete `p2pfs`."""

BREAKS: Final = ":="
"""Where bash begins a new word within one, though the command gets it whole."""


def answer(cli: click.Command, line: str, word: str | None = None) -> str:
    """Return what may follow a line that ends at the cursor.

    `word` is the last word as bash has broken it; bash replaces no more than that.
    """
    *before, incomplete = _words(line)
    items = ShellComplete(cli, {}, "p2pfs", "").get_completions(before[1:], incomplete)
    cut = 0 if word is None else len(incomplete) - len(_unbroken(word, incomplete))
    return "\n".join(_lines(items, _option_of(incomplete), incomplete[:cut]))


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


def _lines(items: Iterable[CompletionItem], option: str, gone: str) -> Iterable[str]:
    for item in items:
        value = f"{option}{item.value}".removeprefix(gone)
        if value.isprintable():
            yield f"{item.type}\t{value}\t{item.help or ''}"
