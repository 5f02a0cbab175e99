# shellcheck shell=bash
# For scripts: finds a Python that is new enough, and installs Debian packages.
# Sourced, not run. A function that fails prints one line on stderr that says what to do, and returns non-zero.

complain() {
    printf '%s: %s\n' "$(basename "$0")" "$*" >&2
    return 1
}

# print_usage SCRIPT prints the comment at the top of the script.
print_usage() {
    sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$1"
}

# Print the path of the first Python on the PATH that is 3.11 or newer.
choose_python() {
    local name
    for name in python3 python3.14 python3.13 python3.12 python3.11 python; do
        if "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$name"
            return
        fi
    done
    complain "needs Python 3.11 or newer; found $(python3 --version 2>&1 || echo none)"
}

# make_venv PYTHON FOLDER
make_venv() {
    if ! "$1" -c 'import ensurepip' 2>/dev/null; then
        install_packages "python3-venv" || return
    fi
    "$1" -m venv --clear "$2" || complain "$1 cannot make a virtual environment; see above"
}

# Daemons are in sbin, which is not on every user's PATH.
has_command() {
    PATH="$PATH:/usr/sbin:/sbin" command -v "$1" >/dev/null
}

# Run a command as root, without ever asking for a password.
as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    else
        sudo -n "$@"
    fi
}

# install_packages PACKAGE… with apt-get. Services that they start are stopped again: the scripts start their own.
install_packages() {
    has_command apt-get || complain "please install first: $* (there is no apt-get here)" || return
    as_root true 2>/dev/null || complain "please install first: sudo apt-get install $*" || return
    printf 'Installing with apt-get, as root: %s\n' "$*"
    local apt=(env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3)
    as_root "${apt[@]}" update || complain "apt-get update failed; see above" || return
    as_root "${apt[@]}" install --no-install-recommends "$@" || complain "apt-get install failed; see above" || return
    local package service
    for package in "$@"; do
        service=${package%-light}
        service=${service/openssh-server/ssh}
        if [ -d /run/systemd/system ] && [ -e "/lib/systemd/system/$service.service" ] && [ ! -e "/etc/init.d/$service" ]; then
            as_root systemctl disable --quiet --now "$service" ||
                complain "$service was installed and may run now; stop it if you do not want it" || return
        fi
        [ -e "/etc/init.d/$service" ] || continue
        as_root service "$service" stop && as_root update-rc.d "$service" disable ||
            complain "$service was installed and may run now; stop it if you do not want it" || return
    done
}
