"""Every foreign error has its place among ours, and ours survive the wire."""

import errno
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm.exc import StaleDataError

from espalier_common import errors
from espalier_common.db import Database
from espalier_common.errors import EspalierError
from espalier_common.rpc.status import DETAILS_KEY, MAX_DETAILS_BYTES, code_of, from_check, to_status, translate


def all_types(root: type[EspalierError] = EspalierError) -> list[type[EspalierError]]:
    return [root, *(found for child in root.__subclasses__() for found in all_types(child))]


@pytest.mark.parametrize("kind", all_types(), ids=lambda kind: kind.__name__)
def test_every_error_has_a_code_of_grpc_and_a_reason(kind: type[EspalierError]) -> None:
    assert grpc.StatusCode[kind.code]
    assert kind.reason.isupper()


@pytest.mark.parametrize("kind", all_types(errors.EspalierError), ids=lambda kind: kind.__name__)
def test_every_public_error_is_drawn_in_the_tree(kind: type[EspalierError]) -> None:
    if kind.__module__ == errors.__name__ and not kind.__name__.startswith("_"):
        assert kind.__name__ in (errors.__doc__ or "")


@pytest.mark.parametrize(
    ("raised", "kind", "reason"),
    [
        (OSError(errno.ENOSPC, "full"), errors.ResourceExhausted, "DISK_FULL"),
        (OSError(errno.EDQUOT, "quota"), errors.ResourceExhausted, "DISK_FULL"),
        (TimeoutError(), errors.DeadlineExceeded, "DEADLINE_EXCEEDED"),
        (OSError(errno.EIO, "broken"), errors.Internal, "INTERNAL"),
        (ZeroDivisionError("secret"), errors.Internal, "INTERNAL"),
    ],
)
def test_a_foreign_error_becomes_ours(raised: BaseException, kind: type[EspalierError], reason: str) -> None:
    error = translate(raised)
    assert isinstance(error, kind)
    assert error.reason == reason
    assert "secret" not in error.message


def _refused(code: grpc.StatusCode, details: str, error: EspalierError | None = None) -> grpc.aio.AioRpcError:
    trailing = [(DETAILS_KEY, to_status(error).SerializeToString())] if error else []
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(*trailing), details)


@pytest.mark.parametrize(
    ("code", "details"),
    [
        (grpc.StatusCode.UNAVAILABLE, "failed to connect to all addresses"),
        (grpc.StatusCode.UNKNOWN, "Stream removed"),
        (grpc.StatusCode.INTERNAL, "Received RST_STREAM with error code 2"),
    ],
)
def test_a_service_that_is_killed_under_a_call_is_away_and_no_defect(code: grpc.StatusCode, details: str) -> None:
    assert isinstance(translate(_refused(code, details)), errors.Unavailable)
    assert isinstance(translate(_refused(grpc.StatusCode.UNKNOWN, "Unexpected ValueError")), errors.Internal)


@pytest.mark.parametrize("kind", [errors.Internal, errors.Conflict, errors.DeadlineExceeded])
def test_what_goes_wrong_at_auth_while_it_checks_a_caller_is_no_defect_here(kind: type[EspalierError]) -> None:
    error = kind("of auth")
    assert isinstance(from_check(_refused(code_of(error), "", error)), errors.Unavailable)
    refused = errors.Unauthenticated("no")
    assert isinstance(from_check(_refused(code_of(refused), "", refused)), errors.Unauthenticated)


def test_a_row_that_went_away_under_a_change_is_a_conflict() -> None:
    assert isinstance(translate(StaleDataError("1 row expected")), errors.Conflict)


def test_nats_errors_mean_try_again() -> None:
    from nats.errors import NoRespondersError

    error = translate(NoRespondersError())
    assert isinstance(error, errors.Unavailable)
    assert error.retry_after


@pytest.fixture(scope="module")
def database(database_url: str) -> Any:
    database = Database(database_url, pool_size=1)
    with database.transaction() as session:
        session.execute(text("CREATE TABLE a (id int PRIMARY KEY, n int NOT NULL CHECK (n > 0))"))
        session.execute(text("CREATE TABLE b (a_id int REFERENCES a (id))"))
        session.execute(text("INSERT INTO a VALUES (1, 1)"))
    yield database
    database.close()


@pytest.mark.parametrize(
    ("statement", "kind"),
    [
        ("INSERT INTO a VALUES (1, 1)", errors.AlreadyExists),
        ("INSERT INTO a VALUES (2, 0)", errors.FailedPrecondition),
        ("INSERT INTO a VALUES (2, NULL)", errors.FailedPrecondition),
        ("INSERT INTO b VALUES (7)", errors.FailedPrecondition),
        ("SELECT 99999999999::int", errors.InvalidArgument),
        ("SELECT 'x'::uuid", errors.InvalidArgument),
        ("SET LOCAL statement_timeout = 20; SELECT pg_sleep(5)", errors.DeadlineExceeded),
        ("SELECT nonsense", errors.Internal),
    ],
)
def test_what_the_database_refuses_becomes_ours(database: Database, statement: str, kind: type[EspalierError]) -> None:
    with pytest.raises(SQLAlchemyError) as caught, database.transaction() as session:
        session.execute(text(statement))
    assert isinstance(translate(caught.value), kind)


def test_a_database_that_is_away_means_try_again() -> None:
    database = Database("postgresql+psycopg2://a:b@127.0.0.1:9/x")
    with pytest.raises(SQLAlchemyError) as caught:
        database.check()
    error = translate(caught.value)
    assert isinstance(error, errors.Unavailable)
    assert error.reason == "DATABASE_UNAVAILABLE"


def test_a_status_carries_all_details() -> None:
    error = errors.ResourceExhausted("Slow down.", retry_after=2, metadata={"limit": "5"})
    status = to_status(error, "r-1")
    info, request, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RequestInfo(), error_details_pb2.RetryInfo()
    for detail, packed in zip((info, request, retry), status.details, strict=True):
        assert packed.Unpack(detail)
    assert (info.reason, info.domain, info.metadata["limit"]) == ("RESOURCE_EXHAUSTED", "espalier", "5")
    assert request.request_id == "r-1"
    assert retry.retry_delay.seconds == 2
    assert code_of(error) is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_a_status_fits_into_a_header() -> None:
    violations = [errors.FieldViolation("f" * 1000, "d" * 1000) for _ in range(100)]
    error = errors.InvalidArgument("m" * 5000, violations=violations, metadata={"k": "v" * 5000})
    assert to_status(error).ByteSize() <= MAX_DETAILS_BYTES + 256
