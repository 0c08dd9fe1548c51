"""The console's files: pages, hashed assets, and what happens before they are built."""

import gzip
from pathlib import Path
from typing import Any

import pytest

from espalier_gateway.encodings import accepted

from .running import RunningGateway, StartGateway


@pytest.fixture
def built(tmp_path: Path) -> Any:
    dist = tmp_path / "dist"
    (dist / "assets").mkdir(parents=True)
    (dist / "index.html").write_text("<!doctype html><title>console</title>")
    (dist / "assets" / "index-4f1c2a.js").write_text("console.log(1)")
    (dist / "favicon.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    (tmp_path / "secret.txt").write_text("secret")
    return dist


async def test_without_built_files_the_first_page_says_how_to_build_them(gateway: RunningGateway) -> None:
    answer = await gateway.client.get("/")
    assert answer.status_code == 200
    assert "gateway/web" in answer.text
    assert answer.headers["content-type"].startswith("text/plain")
    assert (await gateway.client.get("/runs")).status_code == 404


async def test_pages_of_the_console_are_all_index_html(start_gateway: StartGateway, built: Path) -> None:
    gateway = await start_gateway(console=built)
    for path in ("/", "/runs", "/runs/018f6e1c?tab=logs", "/a/b/c"):
        answer = await gateway.client.get(path)
        assert answer.status_code == 200
        assert "<title>console</title>" in answer.text
        assert answer.headers["cache-control"] == "no-cache"
        assert "script-src 'self'" in answer.headers["content-security-policy"]
    unchanged = await gateway.client.get("/", headers={"if-none-match": answer.headers["etag"]})
    assert unchanged.status_code == 304
    assert "script-src 'self'" in unchanged.headers["content-security-policy"]


async def test_hashed_assets_are_kept_for_ever(start_gateway: StartGateway, built: Path) -> None:
    gateway = await start_gateway(console=built)
    answer = await gateway.client.get("/assets/index-4f1c2a.js")
    assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert "javascript" in answer.headers["content-type"]
    icon = await gateway.client.get("/favicon.svg")
    assert icon.headers["cache-control"] == "no-cache"


@pytest.fixture
def compressed(built: Path) -> Path:
    (built / "index.html.gz").write_bytes(gzip.compress(b"<!doctype html><title>console</title>"))
    (built / "assets" / "index-4f1c2a.js.gz").write_bytes(gzip.compress(b"console.log(1)"))
    (built / "assets" / "index-4f1c2a.js.br").write_bytes(b"brotli's bytes")
    return built


@pytest.mark.parametrize(
    ("header", "codings"),
    [
        ("gzip, deflate, br, zstd", ["br", "gzip"]),
        ("GZIP;q=1.0, br;q=0.5", ["gzip", "br"]),
        ("br;q=0, *", ["gzip"]),
        ("*;q=0", []),
        ("identity", []),
        ("", []),
        ("br;q=much, gzip ; q=0.1", ["gzip"]),
    ],
)
def test_a_client_says_which_codings_it_takes(header: str, codings: list[str]) -> None:
    assert accepted(header) == codings


async def test_who_takes_compressed_files_gets_them(start_gateway: StartGateway, compressed: Path) -> None:
    gateway = await start_gateway(console=compressed)
    page = await gateway.client.get("/runs", headers={"accept-encoding": "gzip, br"})
    assert page.headers["content-encoding"] == "gzip"
    assert "<title>console</title>" in page.text
    assert page.headers["content-type"].startswith("text/html")

    script = "/assets/index-4f1c2a.js"
    plain = await gateway.client.get(script, headers={"accept-encoding": "identity"})
    assert plain.text == "console.log(1)"
    assert "content-encoding" not in plain.headers
    brotli = await gateway.client.head(script, headers={"accept-encoding": "gzip, br"})
    assert brotli.headers["content-encoding"] == "br"
    assert brotli.headers["content-length"] == str(len(b"brotli's bytes"))
    assert brotli.headers["cache-control"] == plain.headers["cache-control"]
    assert brotli.headers["content-type"] == plain.headers["content-type"]
    assert brotli.headers["vary"] == plain.headers["vary"] == page.headers["vary"] == "accept-encoding"
    # The compressed files themselves are no addresses.
    assert (await gateway.client.get(f"{script}.gz")).status_code == 404


async def test_each_form_of_a_file_has_a_mark_of_its_own(start_gateway: StartGateway, compressed: Path) -> None:
    gateway = await start_gateway(console=compressed)
    script = "/assets/index-4f1c2a.js"

    async def ask(coding: str, **headers: str) -> Any:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await gateway.client.head(script, headers={"accept-encoding": coding, **named})

    marks = {coding: (await ask(coding)).headers["etag"] for coding in ("br", "gzip", "identity")}
    assert len(set(marks.values())) == 3
    for coding, mark in marks.items():
        assert (await ask(coding, if_none_match=mark)).status_code == 304
        assert (await ask(coding, if_none_match=f'"other", W/{mark}')).headers["vary"] == "accept-encoding"
        others = ", ".join(each for each in marks.values() if each != mark)
        assert (await ask(coding, if_none_match=others)).status_code == 200


async def test_a_part_is_a_part_of_the_form_that_is_sent(start_gateway: StartGateway, compressed: Path) -> None:
    gateway = await start_gateway(console=compressed)
    script = "/assets/index-4f1c2a.js"
    whole = (compressed / "assets" / "index-4f1c2a.js.gz").read_bytes()
    asked = {"accept-encoding": "gzip", "range": "bytes=2-5"}
    # As a stream: the client would decompress what it reads, and a part cannot be.
    async with gateway.client.stream("GET", script, headers=asked) as part:
        assert part.status_code == 206
        assert part.headers["content-range"] == f"bytes 2-5/{len(whole)}"
        assert b"".join([chunk async for chunk in part.aiter_raw()]) == whole[2:6]
    mark = (await gateway.client.head(script, headers={"accept-encoding": "identity"})).headers["etag"]
    async with gateway.client.stream("GET", script, headers=asked | {"if-range": mark}) as other:
        assert other.status_code == 200
        assert b"".join([chunk async for chunk in other.aiter_raw()]) == whole


@pytest.mark.parametrize(
    "path",
    [
        "/assets/gone.js",
        "/logo.png",
        "/api/v1/nothing",
        "/.well-known/x",
        "/..%2fsecret.txt",
        "/%2e%2e/secret.txt",
    ],
)
async def test_what_is_no_page_and_no_file_is_404(start_gateway: StartGateway, built: Path, path: str) -> None:
    gateway = await start_gateway(console=built)
    answer = await gateway.client.get(path)
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"
    assert "secret" not in answer.json()["reason"].lower()


async def test_files_that_are_built_while_the_gateway_runs_are_served(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    dist = tmp_path / "later"
    gateway = await start_gateway(console=dist)
    assert "gateway/web" in (await gateway.client.get("/")).text
    dist.mkdir()
    (dist / "index.html").write_text("built")
    assert (await gateway.client.get("/")).text == "built"


async def test_a_page_takes_no_other_method(start_gateway: StartGateway, built: Path) -> None:
    gateway = await start_gateway(console=built)
    assert (await gateway.client.post("/")).status_code == 405
    assert (await gateway.client.post("/nothing")).status_code == 404
