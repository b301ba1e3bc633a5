"""What holds for every test of this repository, and Medplum's npm tools for those that drive them.

The tools are installed once per version into the user's cache, never into the repository.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
from pathlib import Path

import platformdirs
import pytest
from hypothesis import settings

PACKAGE = Path(__file__).parent / "npm" / "package.json"
# A property is about what a function returns; how long that takes on a busy machine is the benchmarks' business.
settings.register_profile("onprem-agent", deadline=None)
settings.load_profile("onprem-agent")

# A shell starts what runs in its background with SIGINT ignored, and the programs that tests interrupt would inherit
# that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

WITHOUT = "ONPREM_AGENT_TESTS_WITHOUT_NPM"


def program(name: str) -> str:
    """Path of `node` or `npm`. Without it the test fails, unless the environment says that this is known."""
    found = shutil.which(name)
    if found is None:
        remedy = f"install Node.js 20 or newer, or set {WITHOUT}=1 to leave these tests out"
        if os.environ.get(WITHOUT) == "1":
            pytest.skip(f"{name} is not installed and {WITHOUT}=1")
        pytest.fail(f"{name} is not installed: {remedy}", pytrace=False)
    return found


@pytest.fixture(scope="session")
def node() -> str:
    """The Node.js that runs Medplum's tools."""
    return program("node")


@pytest.fixture(scope="session")
def node_modules(node: str) -> Path:
    """The folder that holds @medplum/cli and @medplum/hl7 of the versions in package.json."""
    npm = program("npm")
    wanted = PACKAGE.read_bytes()
    cache = Path(platformdirs.user_cache_dir("onprem-agent-tests", appauthor=False))
    home = cache / hashlib.sha256(wanted).hexdigest()[:16]
    if not (home / "node_modules" / "@medplum" / "cli").exists():
        fresh = home.with_name(f"{home.name}.{os.getpid()}")
        fresh.mkdir(parents=True, exist_ok=True)
        try:
            (fresh / "package.json").write_bytes(wanted)
            done = subprocess.run(
                [npm, "install", "--no-audit", "--no-fund", "--no-package-lock", "--ignore-scripts"],
                cwd=fresh,
                capture_output=True,
                text=True,
                timeout=100,
                check=False,
            )
            if done.returncode != 0:
                pytest.fail(f"npm install failed: {done.stderr.strip()[-2000:]}", pytrace=False)
            if not home.exists():  # another test run may have been quicker
                fresh.rename(home)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
    return home / "node_modules"
