"""The console in a real browser: one Chromium, a window of its own for each test, and what a page must never do."""

import json
import shutil
from contextlib import closing
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import psycopg2
from platform_process import Api, Platform
from playwright.async_api import Browser, BrowserContext, ConsoleMessage, Page, expect

ROOT = Path(__file__).resolve().parents[2]
AXE = ROOT / "gateway" / "web" / "node_modules" / "axe-core" / "axe.min.js"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PASSWORD = "a quiet green lamp"

_numbers = count(1)
PATIENCE = 30_000  # milliseconds; other tests may take the processors meanwhile, and waiting longer costs nothing
expect.set_options(timeout=PATIENCE)


class ConsolePlatform(Platform):
    """A platform as behind a proxy on this machine, so that each window may have an address of its own."""

    def __init__(self, *, providers: str) -> None:
        super().__init__()
        self._providers = providers
        # Another site than 127.0.0.1, where the identity provider is, as it would be on a network.
        self.address = f"http://localhost:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        return {
            **super().environment,
            "ESPALIER_PUBLIC_URL": self.address,
            "ESPALIER_OIDC_PROVIDERS": self._providers,
            "ESPALIER_TRUSTED_PROXIES": '["127.0.0.0/8", "::1/128"]',
        }

    def let_sign_ins_age(self, user_id: str) -> None:
        """As if a user had signed in an hour ago; a test cannot wait for it."""
        self._change_sessions("created_at = created_at - interval '1 hour'", user_id)

    def let_sessions_end_soon(self, user_id: str) -> None:
        """As if a user had signed in 29 days ago, and his sessions were over in three hours."""
        self._change_sessions(
            "created_at = now() - interval '29 days', expires_at = now() + interval '3 hours'", user_id
        )

    def let_sessions_lie_unused(self, user_id: str) -> None:
        """As if a user had done nothing for 13 days, and his sessions were over in three hours for that."""
        self._change_sessions(
            "created_at = now() - interval '13 days', last_used_at = now() - interval '13 days'", user_id
        )
        self._change(
            "UPDATE refresh_tokens SET expires_at = now() + interval '3 hours' FROM login_sessions"
            " WHERE session_id = login_sessions.id AND user_id = %s",
            user_id,
        )

    def let_password_be_chosen(self, user_id: str) -> None:
        """As if a user had chosen the password himself that he was given: doing it takes four checks of passwords."""
        self._change("UPDATE users SET password_change_required = false WHERE id = %s", user_id)

    def let_users_be_many(self, prefix: str, count: int) -> None:
        """As if an administrator had made so many users, whom no test signs in."""
        self._change(
            "INSERT INTO users"
            " (id, username, display_name, password_hash, roles, disabled, password_change_required, created_at)"
            " SELECT gen_random_uuid(), %s || to_char(number, 'FM00'), '', '', '[]', false, false, now()"
            " FROM generate_series(1, %s) AS number",
            prefix,
            count,
        )

    def let_be_used(
        self,
        user_id: str,
        kind: str,
        amount: int,
        *,
        at: str,
        model: str = "",
        source: str = "chat",
        estimated: bool = False,
    ) -> None:
        """As if a user had used so much at this time: what a day of the past has nobody can use any more."""
        self._change(
            "INSERT INTO usage_entries (id, kind, amount, user_id, model, source, reference, at, succeeded, estimated)"
            " VALUES (gen_random_uuid(), %s, %s, %s, %s, %s, '', %s, true, %s)",
            *(kind, amount, user_id, model, source, at, estimated),
        )

    def let_guesses_be_twice_as_many(self, least: int) -> None:
        """As if as many wrong passwords again had come from an address from where this many came."""
        self._change(
            "UPDATE password_counts SET failed = failed || failed WHERE jsonb_array_length(failed) >= %s", least
        )

    def let_codes_be_new_again(self, user_id: str) -> None:
        """As if half a minute had passed since a user gave a code of his authenticator."""
        self._change("UPDATE second_factors SET last_step = 0 WHERE user_id = %s", user_id)

    def _change_sessions(self, assignments: str, user_id: str) -> None:
        self._change(f"UPDATE login_sessions SET {assignments} WHERE user_id = %s", user_id)

    def _change(self, statement: str, *values: str | int) -> None:
        kept = json.loads((self.home / "secrets" / "secrets.json").read_text("utf-8"))
        ports = json.loads((self.home / "run" / "ports.json").read_text("utf-8"))
        address = {"host": "127.0.0.1", "port": ports["postgres"], "dbname": "auth", "user": "auth"}
        with closing(psycopg2.connect(**address, password=kept["database/auth"])) as connection, connection:
            connection.cursor().execute(statement, values)


@dataclass
class Windows:
    """Opens windows, each with cookies and a network address of its own, and finds out what went wrong in them."""

    browser: Browser
    address: str
    faults: list[str] = field(default_factory=list)
    contexts: list[BrowserContext] = field(default_factory=list)

    async def open(self, **settings: Any) -> BrowserContext:
        headers = {"x-forwarded-for": f"203.0.113.{next(_numbers)}"}
        context = await self.browser.new_context(
            base_url=self.address,
            extra_http_headers=headers,
            viewport={"width": 1280, "height": 800},
            reduced_motion="reduce",
            **settings,
        )
        context.set_default_timeout(PATIENCE)
        context.on("console", self._note)
        context.on("weberror", lambda error: self.faults.append(str(error.error)))
        self.contexts.append(context)
        return context

    async def page(self, path: str = "/", **settings: Any) -> Page:
        """The one page of a new window."""
        page = await (await self.open(**settings)).new_page()
        await page.goto(path)
        return page

    async def signed_in(self, username: str, path: str = "/", **settings: Any) -> Page:
        """The one page of a new window in which a user is signed in: by the API, which is quicker than the form."""
        context = await self.open(**settings)
        await begin_session(context, username)
        page = await context.new_page()
        await page.goto(path)
        return page

    async def close(self) -> None:
        for context in self.contexts:
            await context.close()

    def _note(self, message: ConsoleMessage) -> None:
        # A refused call is an answer that the page shows; everything else is a fault of ours.
        if message.type == "error" and "Failed to load resource" not in message.text:
            self.faults.append(message.text)


async def fill_in(page: Page, **values: str) -> None:
    """Fills fields by their names; "_" stands for a dash."""
    for name, value in values.items():
        await page.locator(f'input[name="{name.replace("_", "-")}"]').fill(value)


async def begin_session(context: BrowserContext, username: str) -> None:
    """Signs a user in, in all pages that a window will have."""
    body = {"username": username, "password": PASSWORD, "cookie": True}
    answer = await context.request.post("/api/v1/auth/login", data=body)
    assert answer.ok, await answer.text()


async def sign_in(page: Page, username: str, password: str = PASSWORD) -> None:
    """From the sign-in page to the one that was asked for."""
    await fill_in(page, username=username, password=password)
    await page.get_by_role("button", name="Sign in", exact=True).click()
    await expect(page.get_by_role("heading", level=1)).not_to_have_text("Sign in")


async def heading(page: Page, text: str) -> None:
    """Waits until the page has this heading."""
    await expect(page.get_by_role("heading", level=1)).to_have_text(text)


async def check_accessibility(page: Page, *, within: str = "html", only: str = "") -> None:
    """No violation of WCAG 2.1 A and AA that axe calls serious or critical; of one rule alone where `only` names it."""
    await expect(page.get_by_role("heading", level=1, include_hidden=True)).to_be_visible()
    await expect(page.locator('.el-skeleton, [aria-busy="true"]')).to_have_count(0)
    if not await page.evaluate("'axe' in window"):
        await page.evaluate(AXE.read_text("utf-8"))
    rules = {"type": "rule", "values": [only]} if only else ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]
    found = await page.evaluate(
        "([within, rules]) => axe.run(within, {runOnly: rules, resultTypes: ['violations']})", [within, rules]
    )
    grave = [
        f"{each['id']}: {each['help']}: {node['html']}"
        for each in found["violations"]
        if each["impact"] in {"serious", "critical"}
        for node in each["nodes"]
    ]
    assert not grave, f"{page.url}:\n" + "\n".join(grave)


def make_user(platform: ConsolePlatform, admin: Api, username: str, *, roles: tuple[str, ...] = ("trainer",)) -> str:
    """A user who has chosen his password; gives his id."""
    user = {"username": username, "roles": list(roles)}
    made = str(admin.call("POST", "/api/v1/users", {"user": user, "password": PASSWORD})["id"])
    platform.let_password_be_chosen(made)
    return made
