# shellcheck shell=bash
# What contrib/p2pfs and contrib/check share. Sourced by both, not run by itself.
#
#   set_up               leaves a virtual environment with p2pfs in .venv of the checkout
#   set_up dev           with what the tests need, too
#   set_up desktop       and the programs with windows that some of them use
#
# What was set up is stamped with a checksum of pyproject.toml, so that the next run has
# nothing to do. Two at once wait for each other. For another Python than the first that is
# found, set `environment` and `python` before. What is done is shown, and all that apt and pip
# say is kept in .set-up.log.

# Bash shows a function's local variables to all that it calls. A name that is read-only here
# cannot be hidden by one.
root=$(dirname -- "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")")
program=$(basename -- "$0")
log=$root/.set-up.log
readonly root program log
environment=$root/.venv
python=
can_do_without_fuse= # set where what is missing for a mount is no reason to end

say() {
    echo "$program: $*" >&2
}

fail() {
    say "$*"
    exit 1
}

set_up() {
    local extra=${1:-}
    is_set_up "$extra" && return
    exec 9<"$root/contrib" && flock 9 || fail "cannot lock $root/contrib"
    if ! is_set_up "$extra"; then
        say "setting up in $root, once; the log is .set-up.log there"
        install_system_packages "$extra"
        make_environment
        install_p2pfs "$extra"
        stamp_of "$extra" >"$(stamp_file "$extra")"
        say "set up"
    fi
    exec 9<&-
}

is_set_up() {
    [[ -r $(stamp_file "$1") && $(<"$(stamp_file "$1")") == "$(stamp_of "$1")" ]] &&
        "$environment/bin/python" -I -c 'import p2pfs' 2>/dev/null
}

stamp_file() {
    echo "$environment/.set-up${1:+-$1}"
}

# A checkout that was moved does not count: the programs in .venv hold its old place.
stamp_of() {
    { echo "$root $1" && cat -- "$root/pyproject.toml"; } | sha256sum
}

# System packages, by their names in Debian and Ubuntu. Without Python nothing works; without the
# others some things do.

install_system_packages() {
    local missing is_second=
    mapfile -t missing < <(missing_packages "$1")
    while ((${#missing[@]})); do
        install_packages "${missing[@]}" || break
        mapfile -t missing < <(missing_packages "$1")
        # Once more where the system's own Python has proved too old.
        if [[ $is_second ]]; then break; fi
        is_second=yes
    done
    ((${#missing[@]})) || return 0
    say "missing: ${missing[*]}"
    find_python >/dev/null || exit 1
    if [[ $1 ]]; then
        say "going on: the tests that need them are skipped"
    elif [[ $can_do_without_fuse ]]; then
        say "going on: \`p2pfs mount\` needs them, nothing else does"
    else
        exit 1
    fi
}

missing_packages() {
    has_libfuse || echo libfuse2 # where it is called libfuse2t64, apt takes that for this
    has_program fusermount || echo fuse3
    find_python >/dev/null || python_packages
    case $1 in
        dev) missing_programs rsync tmux unzip ;;
        desktop)
            missing_programs fio rsync tmux unzip vim ffmpeg mpv xdotool dbus-daemon
            has_program Xvfb || echo xvfb
            has_program getfattr || echo attr
            # A router that passes ports on, for tests in networks of their own.
            PATH=$PATH:/usr/sbin has_program nft || echo nftables
            PATH=$PATH:/usr/sbin has_program miniupnpd || echo miniupnpd
            # A small file manager; with more of them, tests use these too.
            has_program thunar || has_program pcmanfm || echo pcmanfm
            ;;
    esac
}

# Print those of these programs that are missing. Each one's package has its name.
missing_programs() {
    local name
    for name in "$@"; do
        has_program "$name" || echo "$name"
    done
}

has_program() {
    command -v "$1" >/dev/null
}

has_libfuse() {
    PATH=$PATH:/sbin:/usr/sbin ldconfig -p | grep -q 'libfuse\.so\.2'
}

python_packages() {
    local version
    if ! has_program python3 || is_recent python3; then
        echo python3 python3-venv
        return
    fi
    for version in 3.14 3.13 3.12 3.11; do # beside a system's own that is too old
        if apt-cache show "python$version" >/dev/null 2>&1; then break; fi
    done
    echo "python$version" "python$version-venv"
}

find_python() {
    local name
    for name in python3 python3.14 python3.13 python3.12 python3.11; do
        if can_make_environment "$name"; then
            command -v "$name"
            return
        fi
    done
    return 1
}

is_recent() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

can_make_environment() {
    "$1" -c 'import ensurepip, venv, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

# Install packages as root. Where that cannot be, say the one command that does it.
install_packages() {
    local install="apt-get update && apt-get install -y --no-install-recommends $*" as_root=()
    if ! has_program apt-get; then
        say "libfuse 2, fusermount, Python 3.11 or newer with its venv module: some of it is missing," \
            "install it with this system's packages (Fedora: fuse fuse-libs python3, Arch: fuse2 python)"
        return 1
    elif [[ $EUID != 0 ]]; then
        as_root=(sudo)
        if ! may_sudo "$*"; then
            if has_program sudo && [[ ! -t 0 ]]; then
                say "there is no terminal at which sudo could ask for a password; install first:"
                echo "    sudo sh -c '$install'" >&2
            else
                say "install first, as root:"
                echo "    $install" >&2
            fi
            return 1
        fi
    fi
    # Another apt may be at work, as it is on a machine that was just started.
    install=${install//apt-get/apt-get -oDPkg::Lock::Timeout=120}
    logged "installing with apt: $*" \
        "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive sh -c "$install"
}

# Return whether sudo lets us; if it wants a password, and there is a terminal, it asks there.
may_sudo() {
    has_program sudo || return 1
    if sudo -n true 2>/dev/null; then return 0; fi
    [[ -t 0 && -t 2 ]] || return 1
    say "apt is to install: $1; sudo asks for your password"
    sudo -v
}

# The virtual environment. One that works is kept, whoever made it.

make_environment() {
    if "$environment/bin/python" -I -c 'import pip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
    then return; fi
    local chosen=${python:-$(find_python)}
    logged "making a virtual environment with $chosen" "$chosen" -m venv --clear "$environment" || exit 1
}

install_p2pfs() {
    local extra=$1
    if [[ $extra == desktop ]]; then extra=dev; fi
    (
        cd -- "$root" &&
            logged "installing p2pfs and what it needs with pip" "$environment/bin/python" -m pip install \
                --disable-pip-version-check --editable ".${extra:+[$extra]}"
    ) || exit 1
}

# Say what is done, and do it with all that it prints in the log. Show how far it is; if it
# fails, show the end of the log.
logged() {
    local what=$1 start=$SECONDS shower status
    shift
    say "$what"
    echo "== $(date): $what" >>"$log" || fail "cannot write $log"
    show_progress 9<&- &
    shower=$!
    # In the foreground: Ctrl-C is for it, and sudo may ask once more.
    "$@" >>"$log" 2>&1
    status=$?
    kill "$shower" 2>/dev/null
    wait "$shower" 2>/dev/null
    if [[ -t 2 ]]; then printf '\r\033[K' >&2; fi
    ((status == 0)) && return
    say "that failed, after $((SECONDS - start)) s, with:"
    tail -n 8 -- "$log" | sed '/^== /d; s/^/    /' >&2
    say "the whole log is $log"
    return "$status"
}

# Show the last line of the log, in place at a terminal and now and then elsewhere.
show_progress() {
    local seconds=0 line
    while sleep 1 && kill -0 $$ 2>/dev/null; do
        seconds=$((seconds + 1))
        line="$seconds s: $(tail -n 1 -- "$log" | tr -d '[:cntrl:]')"
        if [[ -t 2 ]]; then
            printf '\r\033[K%s' "${line:0:${COLUMNS:-80} - 1}" >&2
        elif ((seconds % 20 == 0)); then
            say "$line"
        fi
    done
}
