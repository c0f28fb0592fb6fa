"""The config file: its values and its errors."""

from __future__ import annotations

from pathlib import Path

import pytest

from rackctl.config import read_config
from rackctl.errors import UsageError


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_a_config_file_defines_racks_and_their_settings(tmp_path: Path) -> None:
    path = write(tmp_path / "c.toml", 'default_rack = "prod"\n[racks.prod]\nregion = "eu-west-1"\nssh_port = 2200\n')

    config = read_config(path)

    assert config.default_rack == "prod"
    assert config.racks == {"prod": {"region": "eu-west-1", "ssh_port": "2200"}}


def test_a_missing_config_file_is_an_empty_one(tmp_path: Path) -> None:
    assert read_config(tmp_path / "none.toml").racks == {}


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ('[racks.prod]\nregion = "eu-west-1"\nbuckett = "b"\n', 3, 'unknown setting "buckett": did you mean bucket?'),
        ('[racks.a]\nbucket = "one"\n[racks.b]\nbukket = "y"\n', 4, "bukket"),
        ('racks.prod.zzz = "b"\n', 1, 'unknown setting "zzz"'),
        ('defualt_rack = "prod"\n', 1, "did you mean default_rack?"),
        ('\n[rack.prod]\nregion = "eu-west-1"\n', 2, 'unknown key "rack"'),
        ('[racks]\nprod = "eu-west-1"\n', 2, '"prod" is not a setting'),
        ("[racks.prod]\nssh_port = 99999\n", 2, "it must be a number"),
        ("[racks.prod]\nssh_user = true\n", 2, "ssh_user must be a string"),
        ('[racks.prod]\nbucket = ""\n', 2, "bucket is empty"),
        ('default_rack = "prdo"\n[racks.prod]\n', 1, "there is no [racks.prdo]"),
    ],
)
def test_a_typo_in_the_config_file_is_named_with_file_line_and_key(
    tmp_path: Path, text: str, line: int, says: str
) -> None:
    path = write(tmp_path / "config.toml", text)

    with pytest.raises(UsageError) as caught:
        read_config(path)

    assert f"{path}, line {line}:" in str(caught.value)
    assert says in str(caught.value)


def test_invalid_toml_is_reported_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"config.toml: .*line 2"):
        read_config(write(tmp_path / "config.toml", "[racks.prod]\nregion = \n"))


def test_a_config_file_that_is_a_directory_or_not_utf8_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not a regular file"):
        read_config(tmp_path)
    (tmp_path / "config.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="cannot read the config file"):
        read_config(tmp_path / "config.toml")


def test_a_config_file_over_one_mebibyte_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "config.toml", "#" * (1024 * 1024))
    assert read_config(path).racks == {}

    with path.open("a") as file:
        file.write("#")
    with pytest.raises(UsageError, match=r"config.toml is larger than 1\.0 MiB"):
        read_config(path)


def test_dev_null_is_an_empty_config_file_and_dev_zero_is_refused() -> None:
    assert read_config(Path("/dev/null")).racks == {}
    with pytest.raises(UsageError, match="is not a regular file"):
        read_config(Path("/dev/zero"))


@pytest.mark.parametrize("name", ["-r", "two\\nlines", ""])
def test_a_table_with_an_invalid_rack_name_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match=r"config.toml, line 1: \".*\": a rack's name must have"):
        read_config(write(tmp_path / "config.toml", f'[racks."{name}"]\n'))


def test_a_config_file_that_others_can_write_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "config.toml", '[racks.prod]\nproxy_command = "nc %h %p"\n')
    path.chmod(0o660)

    with pytest.raises(UsageError, match=r"config.toml can be written by other users \(mode 0660\)") as caught:
        read_config(path)

    assert caught.value.hint == f"chmod go-w {path}"
