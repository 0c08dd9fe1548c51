"""The console's files: pages, hashed assets, and what happens before they are built."""

from pathlib import Path
from typing import Any

import pytest

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


@pytest.mark.parametrize(
    "path",
    [
        "/assets/gone.js",
        "/logo.png",
        "/api/v1/nothing",
        "/v1/models",
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
