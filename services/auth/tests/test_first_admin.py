"""The first administrator and the file with his password."""

import logging
from pathlib import Path
from typing import Any

import pytest

from espalier.auth.v1 import resources_pb2, service_pb2
from espalier_common.settings import SettingsError


async def test_the_first_start_makes_an_administrator_with_a_password_in_a_file(
    start_auth: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    auth = await start_auth(admin_password="")
    file = tmp_path / "admin-password"
    password = file.read_text().strip()

    assert file.stat().st_mode & 0o777 == 0o600
    assert len(password) >= 20
    assert password not in caplog.text
    assert (await auth.login("admin", password)).password_change_required


async def test_the_next_start_changes_nothing(start_auth: Any, tmp_path: Path) -> None:
    await start_auth(admin_password="")
    password = (tmp_path / "admin-password").read_text()
    auth = await start_auth(admin_password="")

    assert (tmp_path / "admin-password").read_text() == password
    assert len((await _list(auth, password.strip())).users) == 1


async def test_the_file_goes_when_the_password_is_changed(start_auth: Any, tmp_path: Path) -> None:
    auth = await start_auth(admin_password="")
    password = (tmp_path / "admin-password").read_text().strip()
    await _change(auth, password)

    assert not (tmp_path / "admin-password").exists()
    assert not (await auth.login("admin", "an orange bicycle")).password_change_required


async def test_a_file_left_by_a_crash_goes_at_the_next_start(start_auth: Any, tmp_path: Path) -> None:
    auth = await start_auth(admin_password="")
    file = tmp_path / "admin-password"
    password = file.read_text().strip()
    await _change(auth, password)
    file.write_text(password)

    await start_auth(admin_password="")

    assert not file.exists()


async def test_another_users_change_leaves_the_file(start_auth: Any, tmp_path: Path) -> None:
    auth = await start_auth(admin_password="")
    admin_password = (tmp_path / "admin-password").read_text().strip()
    admin = auth.users((await auth.login("admin", admin_password)).access_token)
    await admin.CreateUser(
        service_pb2.CreateUserRequest(user=resources_pb2.User(username="mia"), password="a quiet green lamp")
    )
    mia = auth.users((await auth.login("mia", "a quiet green lamp")).access_token)
    await mia.ChangePassword(
        service_pb2.ChangePasswordRequest(current_password="a quiet green lamp", new_password="an orange bicycle")
    )

    assert (tmp_path / "admin-password").exists()


async def test_a_given_password_is_used_and_written_nowhere(auth: Any, tmp_path: Path) -> None:
    assert (await auth.login("admin", "correct horse battery")).access_token
    assert not (tmp_path / "admin-password").exists()


async def test_the_file_may_lie_elsewhere(start_auth: Any, tmp_path: Path) -> None:
    await start_auth(admin_password="", admin_password_file=tmp_path / "deep" / "first")

    assert (tmp_path / "deep" / "first").exists()
    assert not (tmp_path / "admin-password").exists()


async def test_no_place_for_the_password_stops_the_start_with_a_sentence(start_auth: Any) -> None:
    with pytest.raises(SettingsError, match="set ESPALIER_ADMIN_PASSWORD"):
        await start_auth(admin_password="", home=None)


async def test_an_unwritable_place_stops_the_start_with_a_sentence(start_auth: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match="Make its directory writable"):
        await start_auth(admin_password="", admin_password_file=tmp_path / "file" / "admin-password")


async def _list(auth: Any, password: str) -> service_pb2.ListUsersResponse:
    admin = auth.users((await auth.login("admin", password)).access_token)
    users: service_pb2.ListUsersResponse = await admin.ListUsers(service_pb2.ListUsersRequest())
    return users


async def _change(auth: Any, password: str) -> None:
    admin = auth.users((await auth.login("admin", password)).access_token)
    await admin.ChangePassword(
        service_pb2.ChangePasswordRequest(current_password=password, new_password="an orange bicycle")
    )
