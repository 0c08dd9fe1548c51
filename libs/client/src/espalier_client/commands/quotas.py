"""Quotas: list, set, delete."""

from enum import StrEnum
from typing import Annotated, Any

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


@app.command("list")
def list_quotas(
    mine: Annotated[bool, typer.Option("--mine", help="Only those that bind you.")] = False,
    output: Output = OutputFormat.TABLE,
    server: Server = "",
) -> None:
    """List the limits with what is used of each."""
    with open_api(server) as api:
        found = api.get("/api/v1/me/quotas").get("quotas", []) if mine else list(api.all(PATH, "quotas"))
    emit(found, output, table=_table)


@app.command("set")
def set_quota(
    what: Annotated[What, typer.Argument(help="What is limited.")],
    amount: Annotated[float, typer.Argument(min=0, help="How much, in these units.")],
    user: Annotated[str, typer.Option(help="For this user: name or id.")] = "",
    group: Annotated[str, typer.Option(help="For the members of this group together: name or id.")] = "",
    per: Annotated[Per | None, typer.Option(help="Tokens and requests: day. Hours: month.")] = None,
    time_zone: Annotated[str, typer.Option(help='Its calendar, such as "Europe/Berlin".')] = "UTC",
    output: Output = OutputFormat.TABLE,
    server: Server = "",
) -> None:
    """Set a limit for a user or a group, or change the one that is there."""
    if bool(user) == bool(group):
        raise InvalidInput("Name whom it binds: --user or --group, and not both.")
    kind, unit, usual = _KINDS[what]
    if usual is None and per is not None:
        raise InvalidInput(f"There is no --per for {what}: it is limited at any time.")
    period = per or usual
    with open_api(server) as api:
        quota = {
            "user_id": lookup.user_id(api, user) if user else "",
            "group_id": lookup.group_id(api, group) if group else "",
            "kind": f"{KIND}{kind}",
            "period": f"{PERIOD}{period.upper() if period else 'UNSPECIFIED'}",
            "amount": amount * unit,
            "time_zone": time_zone,
        }
        emit(_put(api, quota), output, table=lambda made: _table([made]))


@app.command()
def delete(quota: Annotated[str, typer.Argument(help="Id of the limit.")], server: Server = "") -> None:
    """Lift a limit."""
    with open_api(server) as api:
        api.call("DELETE", f"{PATH}/{quota}")
    note("The limit is lifted.")


def _put(api: Api, quota: dict[str, Any]) -> Any:
    same = ("user_id", "group_id", "kind", "period")
    for found in api.all(PATH, "quotas"):
        if all(found.get(name, "") == quota[name] for name in same):
            changes = {"amount": quota["amount"], "time_zone": quota["time_zone"]}
            return api.call("PATCH", f"{PATH}/{found['id']}", changes, query={"update_mask": "amount,time_zone"})
    return api.post(PATH, quota)


def _table(quotas: list[dict[str, Any]]) -> Any:
    rows = [
        (
            quota["id"],
            f"user {quota['user_id']}" if quota.get("user_id") else f"group {quota.get('group_id', '')}",
            word(quota["kind"], KIND),
            amount_text(quota["kind"], quota["used"]),
            amount_text(quota["kind"], quota["amount"]),
            word(quota["period"], PERIOD).replace("unspecified", ""),
            quota.get("reset_time") or "",
        )
        for quota in quotas
    ]
    return table_of(("ID", "BINDS", "WHAT", "USED", "OF", "PER", "BEGINS ANEW"), rows)
