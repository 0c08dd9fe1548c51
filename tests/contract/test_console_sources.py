"""What the console's sources say of passwords and of what stays in the browser, read as text."""

import re
from pathlib import Path

SOURCES = Path(__file__).resolve().parents[2] / "gateway" / "web" / "src"
# Name of the entry and why it may lie there: no secret is among them.
KEPT = {
    "espalier-theme": "light or dark",
    "espalier-stay": "whether sessions of this browser are kept when it is closed",
    "espalier-refreshed": "when a tab refreshed last, in ms",
    "espalier-oidc": "state and binding of a sign-in at a provider, worth nothing without the provider's answer",
    "espalier-columns-${table}": "which columns of a table are shown",
    "espalier-reloaded:${to.fullPath}": "that a page of a former version was loaded anew",
}


def _files() -> dict[str, str]:
    paths = [*SOURCES.rglob("*.vue"), *SOURCES.rglob("*.ts")]
    return {str(path.relative_to(SOURCES)): path.read_text("utf-8") for path in paths if path.name != "schema.d.ts"}


def test_every_password_field_is_masked_and_named_for_managers() -> None:
    files = _files()
    pattern = r"<(?:ElInput|input|PasswordField|TextField)\b[^>]*v-model=\"[\w.]*[pP]assword\"[^>]*>"
    fields = [(name, field) for name, text in sorted(files.items()) for field in re.findall(pattern, text)]
    models = sum(len(re.findall(r"v-model=\"[\w.]*[pP]assword\"", text)) for text in files.values())
    assert len(fields) == models > 5
    for name, field in fields:
        is_masked = "'password'" in field or 'type="password"' in field or field.startswith("<PasswordField")
        assert is_masked, (name, field)
        assert re.search(r"\bautocomplete=", field), (name, field)
    # Shown only after a click, and masked at first.
    assert "const isShown = ref(false);" in files["components/PasswordField.vue"]


def test_nothing_is_done_to_what_is_pasted() -> None:
    handled = [name for name, text in _files().items() if re.search(r"@paste|onpaste|['\"]paste['\"]", text)]
    assert handled == []


def test_every_page_behind_the_sign_in_has_the_way_out() -> None:
    files = _files()
    # Whoever is signed in sees every page within the shell, the shell has the head, and the head the way out.
    assert '<AppShell v-if="isShelled">' in files["App.vue"]
    assert "<AppHeader" in files["layouts/AppShell.vue"]
    assert 'command="logout"' in files["components/AppHeader.vue"]
    assert "await leave()" in files["components/AppHeader.vue"]
    assert "await logout()" in files["composables/useLeaving.ts"]
    # But for the pages that a given password and a required second factor lead to, which have their own.
    for name in ("ChangePasswordPage", "SecondFactorPage"):
        assert '@click="leave"' in files[f"pages/account/{name}.vue"], name
    assert '@click="leave"' in files["components/EnrolmentDialog.vue"]


def test_the_browser_keeps_nothing_but_what_is_written_here() -> None:
    entries = set()
    for name, text in _files().items():
        assert "document.cookie =" not in text, name
        assert "indexedDB" not in text, name
        for argument in re.findall(r"(?:local|session)Storage\.setItem\((\w+)", text):
            named = re.search(rf"const {argument}(?:: \w+)? = [\"`]([^\"`]+)[\"`]", text)
            assert named, (name, argument)
            entries.add(named[1])
        bare = re.findall(r"(?:local|session)Storage(?!\.(?:get|set|remove)Item)\b", text)
        assert bare == [], name
    assert entries == KEPT.keys()
