"""The routes below /api/v1/files. An upload of somebody else answers exactly as one that does not exist."""

from collections.abc import Mapping
from contextlib import suppress
from urllib.parse import parse_qs

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from espalier_common.errors import FailedPrecondition, NotFound
from espalier_common.identity import Principal
from espalier_common.uploads import Upload, UploadStore
from espalier_gateway.callers import Callers
from espalier_gateway.endpoint import endpoint
from espalier_gateway.errors import BodyTooLarge, LengthRequired, ServiceNotConfigured, UnsupportedMedia
from espalier_gateway.exchange import exchange_of
from espalier_gateway.files import tus
from espalier_gateway.files.download import download
from espalier_gateway.files.receiver import Receiver, blocking
from espalier_gateway.settings import GatewaySettings

FILES = "/api/v1/files"
PERMISSION = "training.datasets.create"
OCTETS = "application/octet-stream"


class Files:
    """Uploads: `store` is None when the gateway has no artifact store, and every route says so."""

    def __init__(self, settings: GatewaySettings, *, store: UploadStore | None, callers: Callers) -> None:
        self._max_bytes = settings.max_upload_bytes
        self._store_or_none = store
        self._callers = callers
        self._idle_seconds = settings.upload_idle_seconds

    def routes(self) -> list[BaseRoute]:
        """For the application's router."""
        return [
            endpoint(FILES, OPTIONS=self.announce, POST=self.create),
            endpoint(
                f"{FILES}/{{upload_id}}",
                OPTIONS=self.announce,
                GET=self.info,
                HEAD=self.offset,
                PATCH=self.append,
                DELETE=self.delete,
            ),
            endpoint(f"{FILES}/{{upload_id}}/content", GET=self.content),
        ]

    async def announce(self, _: Request) -> Response:
        """OPTIONS: what of tus this server can do."""
        return Response(status_code=204, headers=tus.announcement(self._max_bytes))

    async def create(self, request: Request) -> Response:
        """POST: begins a resumable upload, or takes a whole file when the request is no tus request."""
        if "tus-resumable" in request.headers or "upload-length" in request.headers:
            return await self._begin(request)
        return await self._take_whole(request)

    async def info(self, request: Request) -> Response:
        """GET: the upload as it stands."""
        upload = await self._own(request)
        return _answer(upload, 200)

    async def offset(self, request: Request) -> Response:
        """HEAD: how many bytes are safely here; the client goes on from there."""
        upload = await self._own(request)
        return Response(status_code=200, headers=_progress(upload))

    async def append(self, request: Request) -> Response:
        """PATCH: the next bytes."""
        tus.check_version(request.headers)
        upload = await self._own(request)
        tus.check_patch_type(request.headers)
        offset = tus.read_number(request.headers, "Upload-Offset")
        declared = request.headers.get("content-length", "")
        if declared.isdecimal() and offset + int(declared) > upload.length:
            raise BodyTooLarge(f"The upload was announced with {upload.length} bytes; more is not accepted.")
        receiver = Receiver(self._store, idle_seconds=self._idle_seconds)
        upload = await receiver.receive(request, upload, offset=offset)
        return Response(status_code=204, headers=_progress(upload))

    async def delete(self, request: Request) -> Response:
        """DELETE: removes the upload and its bytes."""
        upload = await self._own(request)
        await blocking(self._store.delete, upload.id)
        return Response(status_code=204, headers=tus.version())

    async def content(self, request: Request) -> Response:
        """GET: the bytes."""
        upload = await self._own(request)
        if not upload.complete:
            raise FailedPrecondition(
                f"{upload.offset} of {upload.length} bytes have arrived; the file can be read when it is complete."
            )
        return await download(self._store, upload, request.headers)

    async def _begin(self, request: Request) -> Response:
        tus.check_version(request.headers)
        principal = await self._caller(request)
        length = tus.read_number(request.headers, "Upload-Length")
        metadata = tus.read_metadata(request.headers)
        upload = await self._create(
            principal, filename=metadata.get("filename", ""), length=length, sha256=metadata.get("sha256", "")
        )
        if length == 0:
            upload = await blocking(self._store.finish, upload.id)
        exchange_of(request.scope).made = upload.id
        return _answer(upload, 201, {"Location": f"{FILES}/{upload.id}", **_progress(upload)})

    async def _take_whole(self, request: Request) -> Response:
        principal = await self._caller(request)
        media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if media_type != OCTETS:
            raise UnsupportedMedia(
                f"The file must be sent as {OCTETS}; it is {media_type[:100] or 'of no stated type'}."
            )
        if not request.headers.get("content-length", "").isdecimal():
            raise LengthRequired("Send Content-Length with the file's size in bytes.")
        query = parse_qs(request.url.query, keep_blank_values=True)
        upload = await self._create(
            principal,
            filename=query.get("filename", [""])[0],
            length=tus.read_number(request.headers, "Content-Length"),
            sha256=query.get("sha256", [""])[0],
        )
        receiver = Receiver(self._store, idle_seconds=self._idle_seconds)
        try:
            upload = await receiver.receive(request, upload, offset=0)
        except BaseException:
            # Nobody knows its id, so nobody could go on with it.
            with suppress(NotFound):
                await blocking(self._store.delete, upload.id)
            raise
        exchange_of(request.scope).made = upload.id
        return _answer(upload, 201, {"Location": f"{FILES}/{upload.id}"})

    async def _create(self, principal: Principal, *, filename: str, length: int, sha256: str) -> Upload:
        if length > self._max_bytes:
            raise BodyTooLarge(
                f"The file has {length} bytes; the most is {self._max_bytes} (ESPALIER_MAX_UPLOAD_BYTES). Split it."
            )
        return await blocking(
            self._store.create, owner=principal.subject, filename=filename, length=length, sha256=sha256
        )

    async def _own(self, request: Request) -> Upload:
        principal = await self._caller(request)
        upload_id: str = request.path_params["upload_id"]
        upload = await blocking(self._store.get, upload_id)
        if upload.owner != principal.subject:
            raise NotFound("upload", upload_id)
        return upload

    async def _caller(self, request: Request) -> Principal:
        return await self._callers.permitted(request, PERMISSION)

    @property
    def _store(self) -> UploadStore:
        if self._store_or_none is None:
            raise ServiceNotConfigured("The gateway has no place for files; set ESPALIER_ARTIFACTS_URL.")
        return self._store_or_none


def _progress(upload: Upload) -> dict[str, str]:
    return {"Upload-Offset": str(upload.offset), "Upload-Length": str(upload.length), **tus.version()}


def _answer(upload: Upload, status: int, headers: Mapping[str, str] | None = None) -> Response:
    body = {
        "upload_id": upload.id,
        "filename": upload.filename,
        "offset": upload.offset,
        "length": upload.length,
        "sha256": upload.sha256,
        "complete": upload.complete,
    }
    return Response(orjson.dumps(body), status, dict(headers or {}), media_type="application/json")
