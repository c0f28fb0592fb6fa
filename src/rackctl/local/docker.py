"""The `docker` of an instance: it shows the containers that ECS runs there, and does nothing else.

It runs without the rest of rackctl, as ``docker.py STATE_DIR INSTANCE_ID ARGUMENT…``.
"""

import argparse
import json
import os
import re
import socket
import sys
import time
from collections.abc import Callable
from typing import Any, NoReturn

_USAGE = """\
Usage:  docker ps [OPTIONS]

List containers

Options:
  -a, --all             Show all containers
  -f, --filter filter   Filter by id, name, ancestor or status
      --format string   Format output using a template: table, json, or Go's, such as '{{.ID}} {{.Names}}'
  -n, --last int        Show n last created containers
  -l, --latest          Show the latest created container
      --no-trunc        Don't truncate output
  -q, --quiet           Only display container IDs
"""
_COLUMNS = {
    "ID": "CONTAINER ID",
    "Image": "IMAGE",
    "Command": "COMMAND",
    "RunningFor": "CREATED",
    "Status": "STATUS",
    "Ports": "PORTS",
    "Names": "NAMES",
}
_TABLE = "\t".join(f"{{{{.{name}}}}}" for name in _COLUMNS)


def main(state_dir: str, instance_id: str, arguments: list[str]) -> int:
    match arguments:
        case [] | ["help" | "--help" | "-h", *_]:
            print(_USAGE, end="")  # noqa: T201 - it is a program of its own
        case ["--version" | "-v"]:
            print("Docker version 25.0.8, build 0bab007")  # noqa: T201
        case ["ps", *rest] | ["container", "ls" | "ps" | "list", *rest]:
            containers = _containers(state_dir, instance_id)
            _print(_chosen(containers, asked := _parse(rest)), asked)
        case [("run" | "exec" | "logs" | "stop" | "kill" | "inspect" | "images" | "pull" | "rm") as command, *_]:
            _fail(f"docker {command}: an instance of the local rack runs no containers; its docker has only `ps`", 1)
        case [command, *_]:
            _fail(f"docker: '{command}' is not a docker command.\nSee 'docker --help'", 1)
    return 0


def _fail(message: str, status: int) -> NoReturn:
    sys.stderr.write(f"{message}\n")
    raise SystemExit(status)


def _containers(state_dir: str, instance_id: str) -> list[dict[str, Any]]:
    os.chdir(state_dir)  # the whole path may be too long for a socket's address
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect("docker.sock")
            connection.sendall(f"{instance_id}\n".encode())
            with connection.makefile("rb") as answer:
                found: list[dict[str, Any]] = json.load(answer)
    except (OSError, ValueError):
        _fail("Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?", 1)
    return found


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        unknown = re.match(r"unrecognized arguments: (\S+)", message)
        if unknown and not unknown[1].startswith("-"):
            _fail("\"docker ps\" accepts no arguments.\nSee 'docker ps --help'.", 1)
        _fail(f"unknown flag: {unknown[1]}\nSee 'docker ps --help'." if unknown else message, 125)

    def format_help(self) -> str:
        return _USAGE


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = _Parser(prog="docker ps", allow_abbrev=False)
    parser.add_argument("-a", "--all", "-s", "--size", action="store_true")
    parser.add_argument("-q", "--quiet", action="store_true")
    parser.add_argument("--no-trunc", dest="truncate", action="store_false")
    parser.add_argument("-n", "--last", type=int, default=-1)
    parser.add_argument("-l", "--latest", dest="last", action="store_const", const=1)
    parser.add_argument("--format", default="table")
    parser.add_argument("-f", "--filter", dest="filters", action="append", default=[])
    asked = parser.parse_args(arguments)
    for text in asked.filters:
        if text.partition("=")[0] not in _FILTERS:
            _fail(f"Error response from daemon: invalid filter '{text.partition('=')[0]}'", 1)
    return asked


_FILTERS: dict[str, Callable[[dict[str, Any], str], bool]] = {
    "id": lambda container, wanted: container["container_id"].startswith(wanted),
    "name": lambda container, wanted: bool(re.search(wanted, container["name"])),
    "ancestor": lambda container, wanted: wanted in {container["image"], container["image"].partition(":")[0]},
    "status": lambda _, wanted: wanted == "running",
}


def _chosen(containers: list[dict[str, Any]], asked: argparse.Namespace) -> list[dict[str, Any]]:
    wanted = [text.partition("=") for text in asked.filters]
    chosen = [c for c in containers if all(_FILTERS[name](c, value) for name, _, value in wanted)]
    return chosen if asked.last < 0 else chosen[: asked.last]


def _fields(container: dict[str, Any], asked: argparse.Namespace, now: float) -> dict[str, str]:
    command = container["command"].strip('"')
    if asked.truncate and len(command) > 20:
        command = command[:19] + "…"
    created = time.strftime("%Y-%m-%d %H:%M:%S +0000 UTC", time.gmtime(container["created"]))
    return {
        "ID": container["container_id"][: 12 if asked.truncate else 64],
        "Image": container["image"],
        "Command": f'"{command}"',
        "CreatedAt": created,
        "RunningFor": f"{_duration(now - container['created'])} ago",
        "Status": f"Up {_duration(now - container['started'])}",
        "State": "running",
        "Ports": container["ports"],
        "Names": container["name"],
        "Labels": "",
        "Mounts": "",
        "Networks": "bridge",
        "Size": "0B",
        "LocalVolumes": "0",
    }


def _duration(seconds: float) -> str:
    """Format a duration as Docker does (HumanDuration of go-units)."""
    minutes, hours = int(seconds / 60), int(seconds / 3600 + 0.5)
    for holds, words in (
        (seconds < 1, "Less than a second"),
        (seconds < 2, "1 second"),
        (seconds < 60, f"{int(seconds)} seconds"),
        (minutes == 1, "About a minute"),
        (minutes < 46, f"{minutes} minutes"),
        (hours == 1, "About an hour"),
        (hours < 48, f"{hours} hours"),
        (hours < 24 * 14, f"{hours // 24} days"),
        (hours < 24 * 60, f"{hours // 24 // 7} weeks"),
        (hours < 24 * 730, f"{hours // 24 // 30} months"),
    ):
        if holds:
            return words
    return f"{hours // 24 // 365} years"


def _print(containers: list[dict[str, Any]], asked: argparse.Namespace) -> None:
    now = time.time()
    rows = [_fields(container, asked, now) for container in containers]
    if asked.quiet:
        lines = [row["ID"] for row in rows]
    elif asked.format in {"json", "{{json .}}"}:
        lines = [json.dumps(row) for row in rows]
    elif asked.format.partition(" ")[0] == "table":
        template = asked.format.removeprefix("table").strip(" ").replace("\\t", "\t") or _TABLE
        header = {**{name: name.upper() for name in _fields(_ANY, asked, now)}, **_COLUMNS}
        lines = _table([_filled(template, row).split("\t") for row in [header, *rows]])
    else:
        lines = [_filled(asked.format.replace("\\t", "\t"), row) for row in rows]
    sys.stdout.write("".join(f"{line}\n" for line in lines))


_ANY = {"container_id": "", "image": "", "command": "", "created": 0, "started": 0, "ports": "", "name": ""}


def _filled(template: str, row: dict[str, str]) -> str:
    def value(found: "re.Match[str]") -> str:
        if found[1] not in row:
            _fail(f'template parsing error: template: :1: "{found[0]}": can\'t evaluate field {found[1]}', 1)
        return row[found[1]]

    return re.sub(r"\{\{\s*\.(\w+)\s*\}\}", value, template)


def _table(rows: list[list[str]]) -> list[str]:
    widths = [max(7, *(len(cell) for cell in column)) + 3 for column in zip(*rows, strict=True)]
    return ["".join(cell.ljust(width) for cell, width in zip(row[:-1], widths, strict=False)) + row[-1] for row in rows]


if __name__ == "__main__":
    try:
        raise SystemExit(main(sys.argv[1], sys.argv[2], sys.argv[3:]))
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        raise SystemExit(141) from None
