#!/bin/sh
# The sandbox's start command, run as its user:
#
#   start.sh BRIDGE_PORT SSHD_PORT [OPTION OF `wstunnel-py serve`…]
#
# It starts an sshd on loopback, as root, checks which logins it offers, and then becomes the bridge, without root.
# It needs a second sshd: the one that the base system has started read its configuration before ours was there.
set -eu
bridge_port=$1
sshd_port=$2
shift 2
folder=$(dirname "$0")

die() {
    echo "start.sh: $*" >&2
    exit 1
}

# stop_sshd_and_die WHY…
stop_sshd_and_die() {
    sudo -n kill "$sshd" || true
    wait "$sshd" || true
    die "$@"
}

sudo -n install -d -m 0755 /run/sshd || die "sudo needs a password here, and sshd needs root"
set_sshd="-o ListenAddress=127.0.0.1:$sshd_port -o PidFile=none"
# OpenSSH 9.8 and later block addresses after failed logins; behind a bridge all clients have the same address.
if sudo -n /usr/sbin/sshd -t -o PerSourcePenalties=no 2>/dev/null; then
    set_sshd="$set_sshd -o PerSourcePenalties=no"
fi
# shellcheck disable=SC2086  # several words
said=$(sudo -n /usr/sbin/sshd -t $set_sshd 2>&1) || die "sshd does not start: $(echo "$said" | head -n 1 | tr -d '\r')"
# shellcheck disable=SC2086
sudo -n /usr/sbin/sshd -D $set_sshd &
sshd=$!

# The bridge only opens once sshd offers strangers nothing but a login with a key.
look() {
    ssh -F none -p "$sshd_port" -o BatchMode=yes -o PreferredAuthentications=none -o ConnectTimeout=5 \
        -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o GlobalKnownHostsFile=/dev/null \
        -o LogLevel=ERROR "$(id -un)@127.0.0.1" true 2>&1 </dev/null
}
tries=0
while :; do
    if answer=$(look); then
        stop_sshd_and_die "sshd accepts logins without a key: see sshd_config"
    fi
    answer=$(printf %s "$answer" | tr -d '\r')
    case $answer in
        *"Permission denied (publickey).") break ;;
        *"Permission denied"*) stop_sshd_and_die "sshd accepts more than keys: ${answer##*Permission denied }" ;;
    esac
    tries=$((tries + 1))
    [ $tries -lt 50 ] || stop_sshd_and_die "sshd does not answer on port $sshd_port: $answer"
    sleep 0.2
done

exec "$folder/wstunnel-py" serve --listen "0.0.0.0:$bridge_port" --target "127.0.0.1:$sshd_port" "$@"
