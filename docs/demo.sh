#!/usr/bin/env bash
# Runs the main commands on a local rack: list the instances, roll the key, log in to one, replace one.
set -euo pipefail

# The AWS account and the rack of this shell are not used.
unset AWS_PROFILE AWS_ENDPOINT_URL AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY AWS_SESSION_TOKEN
export RACKCTL_RACK=local RACKCTL_CONFIG=/dev/null

run() {
    printf '\n$ %s\n' "$*"
    "$@"
}

# A local rack that is already up is used as it is.
rackctl local status >/dev/null 2>&1 || run rackctl local up --no-key --speed 30
run rackctl instances
run rackctl instances keyroll
run rackctl instances
id=$(rackctl instances -o id --filter status=active | head -n 1)
run rackctl instances ssh "$id" docker ps
run rackctl instances terminate --drain --wait "$id"
run rackctl instances

cat <<END

The local rack is still up. With ${BIN:-.venv/bin} on your PATH, try:

  rackctl instances --watch                 watch the list, in a second terminal
  rackctl instances show i-…                show one instance; by its id, the start of it, address or name
  rackctl instances ssh i-…                 open a shell on an instance
  rackctl instances run --all -- uptime     run a command on all instances
  rackctl instances keyroll plan            show what a keyroll would do
  eval "\$(rackctl local env)"               point any AWS client to the rack
  rackctl local faults add --help           list the faults that you can inject
  rackctl local down                        stop and remove the rack
END
