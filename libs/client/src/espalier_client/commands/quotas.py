"""Quotas: list, set, delete."""

import re
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import typer

from espalier_client import lookup
from espalier_client.api import Api
from espalier_client.commands.usage import KIND, amount_text
from espalier_client.errors import InvalidInput
from espalier_client.output import Output, OutputFormat, emit, note, table_of, word
from espalier_client.session import Server, open_api

app = typer.Typer(no_args_is_help=True, help="Limit what users and groups may use.")

PATH = "/api/v1/quotas"
PERIOD = "QUOTA_PERIOD_"
_HOUR = 3600  # seconds


class What(StrEnum):
    """What can be limited."""

    TOKENS = "tokens"
    REQUESTS = "requests"
    GPU_HOURS = "gpu-hours"
    CPU_HOURS = "cpu-hours"
    CONCURRENT_RUNS = "concurrent-runs"
    STORED_BYTES = "stored-bytes"


class Per(StrEnum):
    """How often it begins anew."""

    DAY = "day"
    MONTH = "month"


# Kind of the contract, its units in one of ours, and the period when none is named.
_KINDS: dict[What, tuple[str, int, Per | None]] = {
    What.TOKENS: ("TOKENS_IN", 1, Per.DAY),
    What.REQUESTS: ("REQUESTS", 1, Per.DAY),
    What.GPU_HOURS: ("GPU_SECONDS", _HOUR, Per.MONTH),
    What.CPU_HOURS: ("CPU_SECONDS", _HOUR, Per.MONTH),
    What.CONCURRENT_RUNS: ("CONCURRENT_RUNS", 1, None),
    What.STORED_BYTES: ("STORED_BYTES", 1, None),
}
_WORDS = {f"{KIND}{kind}": str(what) for what, (kind, _, _) in _KINDS.items()}
_BYTES = {"": 1, "B": 1} | {
    f"{letter}{ending}": base**power
    for power, letter in enumerate("KMGT", start=1)
    for ending, base in (("B", 1000), ("iB", 1024))
}


@app.command("list")
def list_quotas(
    mine: Annotated[bool, typer.Option("--mine", help="Only those that bind you.")] = False,
    user: Annotated[str, typer.Option(help="Only those of this user himself: name or id.")] = "",
    group: Annotated[str, typer.Option(help="Only those of this group: name or id.")] = "",
    output: Output = OutputFormat.TABLE,
    server: Server = "",
) -> None:
    """List the limits with what is used of each."""
    if mine and (user or group):
        raise InvalidInput("Ask for your own limits or for those of others: --mine goes without --user and --group.")
    with open_api(server) as api:
        if mine:
            found = api.get("/api/v1/me/quotas").get("quotas", [])
        else:
            wanted: dict[str, Any] = {
                "user_id": lookup.user_id(api, user) if user else None,
                "group_id": lookup.group_id(api, group) if group else None,
            }
            found = list(api.all(PATH, "quotas", **wanted))
    emit(found, output, table=_table)


@app.command("set")
def set_quota(
    what: Annotated[What, typer.Argument(help="What is limited.")],
    amount: Annotated[str, typer.Argument(help="How much, in these units; bytes also as 500MB or 2GiB.")],
    user: Annotated[str, typer.Option(help="For this user: name or id.")] = "",
    group: Annotated[str, typer.Option(help="For the members of this group together: name or id.")] = "",
    per: Annotated[Per | None, typer.Option(help="Tokens and requests: day. Hours: month.")] = None,
    time_zone: Annotated[
        str, typer.Option(help='Its calendar, such as "Europe/Berlin"; UTC, or what it was, when left away.')
    ] = "",
    output: Output = OutputFormat.TABLE,
    server: Server = "",
) -> None:
    """Set a limit for a user or a group, or change the one that is there."""
    if bool(user) == bool(group):
        raise InvalidInput("Name whom it binds: --user or --group, and not both.")
    kind, unit, usual = _KINDS[what]
    number = _number(what, amount)
    if usual is None and per is not None:
        raise InvalidInput(f"There is no --per for {what}: it is limited at any time.")
    period = per or usual
    with open_api(server) as api:
        quota = {
            "user_id": lookup.user_id(api, user) if user else "",
            "group_id": lookup.group_id(api, group) if group else "",
            "kind": f"{KIND}{kind}",
            "period": f"{PERIOD}{period.upper() if period else 'UNSPECIFIED'}",
            "amount": number * unit,
            "time_zone": time_zone,
        }
        emit(_put(api, quota), output, table=lambda made: _table([made]))


@app.command()
def delete(quota: Annotated[str, typer.Argument(help="Id of the limit.")], server: Server = "") -> None:
    """Lift a limit."""
    with open_api(server) as api:
        api.call("DELETE", f"{PATH}/{quota}")
    note("The limit is lifted.")


def _number(what: What, amount: str) -> float:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)", amount.strip().replace("_", ""))
    units = _BYTES if what is What.STORED_BYTES else {"": 1}
    # k and K are the same thousand here.
    unit = units.get(found[2].replace("k", "K")) if found else None
    if found is None or unit is None:
        example = "as 1000000, 500MB or 2GiB" if what is What.STORED_BYTES else "as 5 or 2.5"
        raise typer.BadParameter(f"{amount!r} is no amount of {what}; give it {example}.", param_hint="amount")
    return float(found[1]) * unit


def _put(api: Api, quota: dict[str, Any]) -> Any:
    same = ("user_id", "group_id", "kind", "period")
    bound = {name: quota[name] or None for name in ("user_id", "group_id")}
    for found in api.all(PATH, "quotas", **bound):
        if all(found.get(name, "") == quota[name] for name in same):
            changes = {"amount": quota["amount"]} | ({"time_zone": quota["time_zone"]} if quota["time_zone"] else {})
            return api.call("PATCH", f"{PATH}/{found['id']}", changes, query={"update_mask": ",".join(changes)})
    return api.post(PATH, quota)


def _table(quotas: list[dict[str, Any]]) -> Any:
    rows = [
        (
            quota["id"],
            _bound(quota, "user") if quota.get("user_id") else _bound(quota, "group"),
            _WORDS.get(quota["kind"]) or word(quota["kind"], KIND),
            amount_text(quota["kind"], quota["used"]),
            amount_text(quota["kind"], quota["amount"]),
            word(quota["period"], PERIOD).replace("unspecified", ""),
            _local(quota),
        )
        for quota in quotas
    ]
    return table_of(("ID", "BINDS", "WHAT", "USED", "OF", "PER", "BEGINS ANEW"), rows)


def _bound(quota: dict[str, Any], whom: str) -> str:
    return f"{whom} {quota.get(f'{whom}_name') or quota.get(f'{whom}_id', '')}"


def _local(quota: dict[str, Any]) -> str:
    """When it begins anew, by the clock of its own calendar."""
    reset, name = quota.get("reset_time"), quota.get("time_zone") or "UTC"
    if not reset:
        return ""
    try:
        return f"{datetime.fromisoformat(reset).astimezone(ZoneInfo(name)):%Y-%m-%d %H:%M} {name}"
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return str(reset)  # this machine has no data of that zone
