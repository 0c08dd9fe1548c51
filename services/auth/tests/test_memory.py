"""The memory of password checks is asked for once, and in huge pages."""

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
from espalier_auth.memory import keep_memory
from espalier_auth.passwords import Passwords

keep_memory(checks=2)
passwords = Passwords()
assert passwords.matches(passwords.hash_now("a quiet green lamp"), "a quiet green lamp")
print(open("/proc/self/smaps").read())
"""


@pytest.mark.skipif(
    not Path("/sys/kernel/mm/transparent_hugepage").is_dir(), reason="this kernel has no transparent huge pages"
)
def test_the_kernel_is_asked_for_huge_pages_for_the_checks_and_for_nothing_else() -> None:
    # In a process of its own: what it sets holds for good.
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    flags = [line.split()[1:] for line in done.stdout.splitlines() if line.startswith("VmFlags:")]

    assert 1 <= sum("hg" in each for each in flags) <= 3
