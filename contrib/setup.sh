# shellcheck shell=bash
# What contrib/p2pfs and contrib/check share. Sourced by both, not run by itself.
#
#   set_up [dev]     leaves a virtual environment with p2pfs in .venv of the checkout
#
# What was set up is stamped with a checksum of pyproject.toml, so that the next run has
# nothing to do. Two at once wait for each other. For another Python than the first that is
# found, set `environment` and `python` before.

root=$(dirname -- "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")")
environment=$root/.venv
python=
program=$(basename -- "$0")

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
    say "setting up in $root, once"
    exec 9<"$root/contrib" && flock 9 || fail "cannot lock $root/contrib"
    if ! is_set_up "$extra"; then
        install_system_packages "$extra"
        make_environment
        install_p2pfs "$extra"
        stamp_of "$extra" >"$(stamp_file "$extra")"
    fi
    exec 9<&-
    say "set up"
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

# System packages: FUSE is for mounts alone, so p2pfs goes on without; Python is a must.

install_system_packages() {
    local packages=() program
    has_libfuse || packages+=("$(first_known libfuse2t64 libfuse2)")
    command -v fusermount >/dev/null || packages+=(fuse3)
    if [[ $1 == dev ]]; then  # programs that tests run; each package has its name
        for program in fio git rsync tar tmux unzip vim; do
            command -v "$program" >/dev/null || packages+=("$program")
        done
    fi
    apt_install "${packages[@]}" || say "going on; without FUSE \`p2pfs serve\` works, \`mount\` does not"
    if ! find_python >/dev/null; then
        apt_install python3 python3-venv && find_python >/dev/null ||
            apt_install python3.11 python3.11-venv && find_python >/dev/null ||
            fail "Python 3.11 or newer, with its venv module, is needed"
    fi
    if [[ $1 == dev ]]; then install_desktop; fi
}

# A virtual screen, a small file manager for it, and a player and what makes a film; with more
# file managers, tests use these too.
install_desktop() {
    local packages=()
    command -v Xvfb >/dev/null || packages+=(xvfb)
    command -v xdotool >/dev/null || packages+=(xdotool)
    command -v dbus-daemon >/dev/null || packages+=(dbus-daemon)
    command -v thunar pcmanfm >/dev/null || packages+=(pcmanfm)
    command -v ffmpeg >/dev/null || packages+=(ffmpeg)
    command -v mpv >/dev/null || packages+=(mpv)
    ((${#packages[@]})) || return 0
    apt_install --no-install-recommends "${packages[@]}" ||
        say "going on; tests with a file manager or a player are skipped"
}

has_libfuse() {
    PATH=$PATH:/sbin:/usr/sbin ldconfig -p | grep -q 'libfuse\.so\.2'
}

first_known() {
    local name
    for name in "$@"; do
        if apt-cache show "$name" >/dev/null 2>&1; then break; fi
    done
    echo "$name"
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

can_make_environment() {
    "$1" -c 'import ensurepip, venv, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

apt_install() {
    (($#)) || return 0
    local as_root=()
    if [[ $EUID != 0 ]]; then as_root=(sudo -n); fi
    if ! command -v apt-get >/dev/null || ! "${as_root[@]}" true 2>/dev/null; then
        say "missing: $*; install with: sudo apt-get install $*"
        return 1
    fi
    say "installing with apt: $*"
    "${as_root[@]}" apt-get update -qq >/dev/null 2>&1
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y "$@" >/dev/null 2>&1 ||
        { say "apt could not install: $*"; return 1; }
}

# The virtual environment. One that works is kept, whoever made it.

make_environment() {
    if "$environment/bin/python" -I -c 'import pip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
    then return; fi
    local python=${python:-$(find_python)}
    [[ $python ]] || fail "Python 3.11 or newer, with its venv module, is needed"
    say "making a virtual environment with $python"
    "$python" -m venv --clear "$environment" || fail "cannot make a virtual environment in $environment"
}

install_p2pfs() {
    local log=$environment/set-up.log
    say "installing p2pfs and what it needs"
    (
        cd -- "$root" &&
            "$environment/bin/python" -m pip install --disable-pip-version-check --editable ".${1:+[$1]}"
    ) >"$log" 2>&1 || fail "pip could not install p2pfs: $(grep -i error "$log" | tail -1) (see $log)"
}
