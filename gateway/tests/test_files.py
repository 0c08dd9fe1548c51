"""Upload in one request and resumable by tus, download, and whose files they are."""

import asyncio
import base64
import errno
import hashlib
from typing import Any

import httpx
import pytest

from .running import RunningGateway, StartGateway

FILES = "/api/v1/files"
TUS = {"tus-resumable": "1.0.0"}
OCTETS = {"content-type": "application/octet-stream"}
PART = {**TUS, "content-type": "application/offset+octet-stream"}
ADA = "018f6e1c-0b0a-7c3e-9d5a-0242ac120002"
BOB = "018f6e1c-0b0a-7c3e-9d5a-0242ac120009"


@pytest.fixture
def client(gateway: RunningGateway) -> Any:
    return gateway.client_for(permissions=("training.datasets.create",), subject=ADA)


def described(**values: Any) -> Any:
    return ",".join(f"{name} {base64.b64encode(value.encode()).decode()}" for name, value in values.items())


async def begin(client: httpx.AsyncClient, length: Any, **metadata: Any) -> Any:
    headers = {**TUS, "upload-length": str(length), "upload-metadata": described(filename="data.jsonl", **metadata)}
    return await client.post(FILES, headers=headers)


async def test_a_file_goes_up_in_one_request_and_comes_back(client: httpx.AsyncClient) -> None:
    content = b'{"text": "hello"}\n' * 1000
    answer = await client.post(f"{FILES}?filename=data.jsonl", content=content, headers=OCTETS)
    assert answer.status_code == 201, answer.text
    upload = answer.json()
    assert upload["sha256"] == hashlib.sha256(content).hexdigest()
    assert (upload["offset"], upload["length"], upload["complete"]) == (len(content), len(content), True)
    info = await client.get(answer.headers["location"])
    assert info.json() == upload
    back = await client.get(f"{FILES}/{upload['upload_id']}/content")
    assert back.content == content
    assert back.headers["content-disposition"].startswith('attachment; filename="data.jsonl"')
    assert "sandbox" in back.headers["content-security-policy"]


async def test_a_resumable_upload_goes_on_where_it_broke_off(client: httpx.AsyncClient) -> None:
    content = bytes(range(256)) * 100
    created = await begin(client, len(content))
    assert created.status_code == 201
    place = created.headers["location"]
    assert created.headers["tus-resumable"] == "1.0.0"
    first = await client.patch(place, content=content[:10_000], headers={**PART, "upload-offset": "0"})
    assert (first.status_code, first.headers["upload-offset"]) == (204, "10000")
    seen = await client.head(place, headers=TUS)
    assert (seen.headers["upload-offset"], seen.headers["upload-length"]) == ("10000", "25600")
    assert seen.headers["cache-control"] == "no-store"
    wrong = await client.patch(place, content=b"x", headers={**PART, "upload-offset": "5"})
    assert wrong.status_code == 409
    last = await client.patch(place, content=content[10_000:], headers={**PART, "upload-offset": "10000"})
    assert last.headers["upload-offset"] == "25600"
    info = (await client.get(place)).json()
    assert (info["complete"], info["sha256"]) == (True, hashlib.sha256(content).hexdigest())
    after = await client.patch(place, content=b"", headers={**PART, "upload-offset": "25600"})
    assert after.status_code == 409


async def test_what_arrived_before_the_connection_broke_is_kept(
    client: httpx.AsyncClient, gateway: RunningGateway
) -> None:
    created = await begin(client, 1_000_000)
    place = created.headers["location"]
    host, _, port = gateway.address.partition(":")
    _, writer = await asyncio.open_connection(host, int(port))
    head = [f"PATCH {place} HTTP/1.1", "Host: localhost", f"Authorization: {client.headers['authorization']}"]
    head += [f"{name}: {value}" for name, value in PART.items()]
    head += ["Upload-Offset: 0", "Content-Length: 1000000", "", ""]
    writer.write("\r\n".join(head).encode() + b"a" * 300_000)
    await writer.drain()
    writer.close()

    async def kept() -> Any:
        while (await client.head(place, headers=TUS)).headers["upload-offset"] != "300000":
            await asyncio.sleep(0.05)

    await asyncio.wait_for(kept(), 60)
    rest = await client.patch(place, content=b"a" * 700_000, headers={**PART, "upload-offset": "300000"})
    assert rest.headers["upload-offset"] == "1000000"


async def test_an_empty_file_is_complete_at_once(client: httpx.AsyncClient) -> None:
    created = await begin(client, 0)
    assert created.json()["complete"] is True
    assert created.json()["sha256"] == hashlib.sha256(b"").hexdigest()
    back = await client.get(f"{created.headers['location']}/content")
    assert (back.status_code, back.content) == (200, b"")


async def test_options_say_what_the_server_can_do(gateway: RunningGateway) -> None:
    answer = await gateway.client.options(FILES)
    assert answer.status_code == 204
    assert answer.headers["tus-version"] == "1.0.0"
    assert answer.headers["tus-extension"] == "creation,termination"
    assert int(answer.headers["tus-max-size"]) == gateway.settings.max_upload_bytes


async def test_a_hash_that_differs_is_refused_and_nothing_is_kept(client: httpx.AsyncClient) -> None:
    answer = await client.post(f"{FILES}?filename=a&sha256={'0' * 64}", content=b"x", headers=OCTETS)
    assert answer.status_code == 400
    assert answer.json()["violations"][0]["field"] == "sha256"


async def test_somebody_elses_file_answers_exactly_as_none(client: httpx.AsyncClient, gateway: RunningGateway) -> None:
    created = await begin(client, 10)
    other = gateway.client_for(permissions=("training.datasets.create",), subject=BOB)
    absent = "018f6e1c-0b0a-7c3e-9d5a-0242ac12ffff"
    same = {"x-request-id": "same"}
    upload_id = created.json()["upload_id"]
    for method, path, headers in (
        ("GET", "", {}),
        ("HEAD", "", TUS),
        ("PATCH", "", {**PART, "upload-offset": "0"}),
        ("DELETE", "", TUS),
        ("GET", "/content", {}),
    ):
        theirs = await other.request(method, f"{FILES}/{upload_id}{path}", headers={**headers, **same})
        none = await other.request(method, f"{FILES}/{absent}{path}", headers={**headers, **same})
        assert theirs.status_code == none.status_code == 404
        assert theirs.text.replace(upload_id, "ID") == none.text.replace(absent, "ID")
    assert (await client.get(f"{FILES}/{upload_id}")).status_code == 200


async def test_the_permission_is_checked_here(gateway: RunningGateway) -> None:
    answer = await gateway.client.post(f"{FILES}?filename=a", content=b"x", headers=OCTETS)
    assert answer.status_code == 401
    weak = gateway.client_for(permissions=("training.runs.get",))
    answer = await weak.post(f"{FILES}?filename=a", content=b"x", headers=OCTETS)
    assert answer.status_code == 403
    assert "training.datasets.create" in answer.json()["detail"]
    forged = {"authorization": "Bearer a.b.c", **OCTETS}
    answer = await gateway.client.post(f"{FILES}?filename=a", content=b"x", headers=forged)
    assert answer.status_code == 401


@pytest.mark.parametrize(
    ("asked", "status", "content"),
    [
        ("bytes=0-3", 206, b"0123"),
        ("bytes=4-", 206, b"456789"),
        ("bytes=-2", 206, b"89"),
        ("bytes=8-100", 206, b"89"),
        ("bytes=10-", 416, None),
        ("bytes=-0", 416, None),
        ("bytes=5-2", 200, b"0123456789"),
        ("bytes=0-1,3-4", 200, b"0123456789"),
        ("rows=1-2", 200, b"0123456789"),
        ("bytes=" + "0-1," * 10_000 + "2-3", 200, b"0123456789"),
    ],
)
async def test_a_range_of_a_file(client: httpx.AsyncClient, asked: str, status: int, content: bytes | None) -> None:
    created = await client.post(f"{FILES}?filename=a", content=b"0123456789", headers=OCTETS)
    path = f"{FILES}/{created.json()['upload_id']}/content"
    answer = await client.get(path, headers={"range": asked})
    assert answer.status_code == status
    if content is None:
        assert answer.headers["content-range"] == "bytes */10"
    else:
        assert answer.content == content
    if status == 206:
        assert answer.headers["content-range"].endswith("/10")


async def test_a_known_file_is_not_sent_again(client: httpx.AsyncClient) -> None:
    created = await client.post(f"{FILES}?filename=a", content=b"0123456789", headers=OCTETS)
    path = f"{FILES}/{created.json()['upload_id']}/content"
    etag = (await client.get(path)).headers["etag"]
    assert (await client.get(path, headers={"if-none-match": etag})).status_code == 304
    changed = await client.get(path, headers={"range": "bytes=0-1", "if-range": '"other"'})
    assert changed.status_code == 200


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"tus-resumable": "0.2.0"}, 412),
        ({"upload-length": "x"}, 400),
        ({"upload-length": "-1"}, 400),
        ({"upload-length": "99999999999999"}, 413),
        ({"upload-metadata": "filename !!!"}, 400),
        ({"upload-metadata": ""}, 400),
        ({"upload-metadata": described(filename="../../etc/passwd")}, 400),
        ({"upload-metadata": described(filename="a\0b")}, 400),
        ({"upload-metadata": described(filename="a" * 4096)}, 400),
        ({"upload-metadata": described(filename="a", sha256="zz")}, 400),
    ],
)
async def test_a_wrong_beginning_is_refused(client: httpx.AsyncClient, change: dict[str, str], status: int) -> None:
    headers = {**TUS, "upload-length": "5", "upload-metadata": described(filename="a"), **change}
    answer = await client.post(FILES, headers=headers)
    assert answer.status_code == status, answer.text


async def test_a_hostile_file_name_comes_back_harmless(client: httpx.AsyncClient) -> None:
    name = 'a"\r\nSet-Cookie: x\u202e.html'
    headers = {**TUS, "upload-length": "0", "upload-metadata": described(filename=name)}
    created = await client.post(FILES, headers=headers)
    assert created.status_code == 201
    back = await client.get(f"{created.headers['location']}/content")
    assert "set-cookie" not in back.headers
    assert back.headers["content-type"] == "application/octet-stream"
    assert back.headers["content-disposition"].startswith('attachment; filename="a___Set-Cookie_ x_.html"')


async def test_wrong_parts_are_refused(client: httpx.AsyncClient) -> None:
    created = await begin(client, 5)
    place = created.headers["location"]
    for headers, content, status in (
        ({**TUS, **OCTETS, "upload-offset": "0"}, b"abc", 415),
        ({"content-type": PART["content-type"], "upload-offset": "0"}, b"abc", 412),
        (PART, b"abc", 400),
        ({**PART, "upload-offset": "0"}, b"abcdef", 413),
    ):
        answer = await client.patch(place, content=content, headers=headers)
        assert answer.status_code == status, answer.text
    assert (await client.get(f"{place}/content")).status_code == 409


async def test_the_size_cap_and_a_missing_length_are_told(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(max_upload_bytes=1000)
    client = gateway.client_for()
    answer = await client.post(f"{FILES}?filename=a", content=b"x" * 1001, headers=OCTETS)
    assert answer.status_code == 413
    assert "ESPALIER_MAX_UPLOAD_BYTES" in answer.json()["detail"]

    async def pieces() -> Any:
        yield b"x"

    answer = await client.post(f"{FILES}?filename=a", content=pieces(), headers=OCTETS)
    assert answer.status_code == 411
    answer = await client.post(f"{FILES}?filename=a", content=b"x", headers={"content-type": "text/html"})
    assert answer.status_code == 415
    answer = await client.post(FILES, content=b"x", headers=OCTETS)
    assert answer.json()["violations"][0]["field"] == "filename"


async def test_an_upload_can_be_removed(client: httpx.AsyncClient) -> None:
    created = await begin(client, 5)
    place = created.headers["location"]
    assert (await client.delete(place, headers=TUS)).status_code == 204
    assert (await client.head(place, headers=TUS)).status_code == 404


async def test_a_full_disk_is_507_with_a_sentence(client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    from espalier_common.uploads import UploadStore

    created = await begin(client, 5)

    def full(*_: Any, **__: Any) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(UploadStore, "append", full)
    answer = await client.patch(created.headers["location"], content=b"abcde", headers={**PART, "upload-offset": "0"})
    assert (answer.status_code, answer.json()["reason"]) == (507, "DISK_FULL")
    assert "disk" in answer.json()["detail"]


async def test_two_senders_of_one_upload_do_not_mix(client: httpx.AsyncClient) -> None:
    created = await begin(client, 200_000)
    place = created.headers["location"]
    headers = {**PART, "upload-offset": "0"}
    answers = await asyncio.gather(
        *(client.patch(place, content=letter * 200_000, headers=headers) for letter in (b"a", b"b"))
    )
    assert sorted(answer.status_code for answer in answers) == [204, 409]
    content = (await client.get(f"{place}/content")).content
    assert content in {b"a" * 200_000, b"b" * 200_000}


async def test_a_gateway_without_an_artifact_store_says_so(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(artifacts_url="")
    answer = await gateway.client_for().post(f"{FILES}?filename=a", content=b"x", headers=OCTETS)
    assert answer.status_code == 503
    assert "ESPALIER_ARTIFACTS_URL" in answer.json()["detail"]


async def test_a_large_file_is_never_whole_in_memory(client: httpx.AsyncClient) -> None:
    import resource

    size = 192 << 20
    block = b"x" * (1 << 20)

    async def pieces() -> Any:
        for _ in range(size // len(block)):
            yield block

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    headers = {**OCTETS, "content-length": str(size)}
    answer = await client.post(f"{FILES}?filename=big", content=pieces(), headers=headers)
    assert answer.json()["length"] == size
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 64 << 10  # KiB
