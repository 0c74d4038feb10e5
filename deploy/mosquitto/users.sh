#!/bin/sh
# The password file at $1, from the secrets in $2 (default /run/secrets).
set -eu
file=$1
secrets=${2:-/run/secrets}
umask 077
: > "$file"
for user in simulator edge viewer; do
    mosquitto_passwd -b "$file" "$user" "$(cat "$secrets/broker_$user")"
done
