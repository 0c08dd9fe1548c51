import os
import shutil
from pathlib import Path

import pytest

from espalier_client.errors import PlatformError
from espalier_client.local import layout as layouts
from espalier_client.local.layout import Layout, default_layout


def test_the_home_of_the_environment_goes_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ESPALIER_HOME", str(tmp_path))
    assert default_layout() == Layout(tmp_path)
    monkeypatch.delenv("ESPALIER_HOME")
    assert default_layout().home.name == "var"


def test_a_home_that_is_a_file_gives_one_sentence(tmp_path: Path) -> None:
    home = tmp_path / "var"
    home.write_text("")
    with pytest.raises(PlatformError, match="cannot be written to") as caught:
        Layout(home).create()
    assert "ESPALIER_HOME" in caught.value.message


def test_a_home_that_cannot_be_made_gives_one_sentence_with_what_to_do() -> None:
    with pytest.raises(PlatformError, match="cannot be made") as caught:
        Layout(Path("/proc/nothing")).create()
    assert "/proc/nothing" in caught.value.message
    assert "set ESPALIER_HOME to" in caught.value.message


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_home_without_rights_gives_one_sentence(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(PlatformError, match="cannot be written to"):
            Layout(tmp_path / "var").create()
    finally:
        tmp_path.chmod(0o700)


def test_a_full_disk_gives_one_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    full = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(layouts.shutil, "disk_usage", lambda _path: full)
    with pytest.raises(PlatformError, match="MiB free"):
        Layout(tmp_path / "var").create()


def test_what_the_disk_refuses_in_the_middle_gives_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(PlatformError, match="is full"), layouts.disk_errors(tmp_path):
        raise OSError(28, "No space left on device")
