#!/bin/sh
# Makes up what is missing of the secrets of docker-compose.yml; a secret that is there is kept.
set -eu
cd "$(dirname "$0")"
for name in broker_simulator broker_edge broker_viewer influxdb_password influxdb_token grafana_password; do
    [ -s "$name" ] || head -c 24 /dev/urandom | od -An -tx1 | tr -d ' \n' > "$name"
    chmod 644 "$name" # containers read them as users of their own; the folder is for you alone
done
# Who may see the page: nobody, until `beilun serve token` adds somebody (docs/stores.md).
[ -s page_tokens ] || echo '# Made by `beilun serve token`.' > page_tokens
chmod 644 page_tokens
chmod 700 .
