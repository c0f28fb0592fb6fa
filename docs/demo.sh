#!/usr/bin/env bash
# The main job on a rack of this machine: see the instances, give them a key, get onto one, replace one.
set -euo pipefail

# Whatever AWS account or rack this shell is set up for, the demonstration is not about it.
unset AWS_PROFILE AWS_ENDPOINT_URL AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY AWS_SESSION_TOKEN
export RACKCTL_RACK=local RACKCTL_CONFIG=/dev/null

run() {
    printf '\n$ %s\n' "$*"
    "$@"
}

# One that is up already is used as it is.
rackctl local status >/dev/null 2>&1 || run rackctl local up --no-key --speed 30
run rackctl instances
run rackctl instances keyroll
run rackctl instances
id=$(rackctl instances -o id --filter status=active | head -n 1)
run rackctl instances ssh "$id" docker ps
run rackctl instances terminate --drain --wait "$id"
run rackctl instances

cat <<END

The rack is still up. What to try next, with ${BIN:-.venv/bin} on your PATH:

  rackctl instances --watch                 in a second terminal, while you do the others
  rackctl instances ssh i-…                 a shell on an instance; i- and four characters of the id are enough
  rackctl instances run --all -- uptime     a command on all of them
  rackctl instances keyroll plan            what a keyroll would do
  eval "\$(rackctl local env)"               and any AWS client talks to the rack
  rackctl local faults list                 what can be made to go wrong
  rackctl local down                        end it, leaving nothing behind
END
