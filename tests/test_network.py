"""A local run reaches no network: nothing is looked up, connected to or sent, and none is needed.

The commands run in a child whose every request is noted, in a network namespace of its own where the machine lets
anyone make one. The child has none of the variables that forbid libraries the network.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

REPOSITORY = Path(__file__).parent.parent

CHILD = """\
import json, socket, sys
asked = []
def audit(event, arguments):
    if event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"):
        asked.append([event, repr(arguments)])
    elif event in ("socket.connect", "socket.sendto", "socket.bind"):
        if not isinstance(arguments[1], (str, bytes)):  # a path: the socket of this machine
            asked.append([event, repr(arguments[1])])
sys.addaudithook(audit)
from analyses.cli.main import main
codes = [main(arguments) for arguments in json.loads(sys.argv[1])]
mine = list(asked)
try:
    socket.create_connection(("127.0.0.1", 9), timeout=1).close()
except OSError:
    pass
try:
    socket.create_connection(("192.0.2.1", 9), timeout=1).close()  # an address that is nobody's, for documentation
    reached = "connected"
except OSError as error:
    reached = type(error).__name__ + ": " + str(error)
told = {"codes": codes, "asked": mine, "own": len(asked) - len(mine), "reached": reached}
open("told.json", "w").write(json.dumps(told))
"""

UNSHARE = ("unshare", "--user", "--map-root-user", "--net")
FORBIDDING = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE")


def can_cut() -> bool:
    """Whether a child can have a network of its own, with nobody in it."""
    return bool(shutil.which("unshare")) and not subprocess.run([*UNSHARE, "true"], capture_output=True).returncode


pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Any]:
    """What came of a study, an explanation and a page."""
    place = tmp_path_factory.mktemp("alone")
    study = yaml.safe_load((REPOSITORY / "analyses/studies/color-noun.yaml").read_text())
    study["analyses"] = dict.fromkeys(("behavior", "activation_patching", "context_flow"))
    (place / "short.yaml").write_text(yaml.safe_dump(study))
    text = "I love the color black, and I hope to have a cat like that one day."
    commands = [
        ["run", "short.yaml", "--n", "4", "--out", "run", "--quiet"],
        ["report", "run"],
        ["explain", text, "--from", "black", "--to", "cat", "--seconds", "1", "--out", "answer"],
    ]
    environment = {key: value for key, value in os.environ.items() if key not in FORBIDDING}
    cut = UNSHARE if can_cut() else ()
    done = subprocess.run(
        [*cut, sys.executable, "-c", CHILD, json.dumps(commands)],
        cwd=place,
        env={**environment, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
    )
    assert (place / "told.json").exists(), done.stderr
    found = json.loads((place / "told.json").read_text())
    assert found["codes"] == [0, 0, 0], done.stderr
    return {**found, "cut": bool(cut)}


def test_a_run_an_explanation_and_a_page_ask_nobody(told: Mapping[str, Any]) -> None:
    assert told["asked"] == []
    assert told["own"] >= 2  # the two connections that the child tries itself are seen


def test_they_need_no_network(told: Mapping[str, Any]) -> None:
    if not told["cut"]:
        pytest.skip("this machine lets nobody make a network namespace (unshare --user --net)")
    assert "unreachable" in told["reached"]
