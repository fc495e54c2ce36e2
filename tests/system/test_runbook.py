"""The runbook keeps its promises: messages, commands, files, health fields, service and image."""

from __future__ import annotations

import ast
import configparser
import functools
import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import core.errors
import live_trade
from config import LIVE_CONFIG
from docs.update_readme import README, ROOT
from live.commands.status import SILENT_MS
from live.exchange.credentials import KEY, SECRET
from live.exchange.errors import _ADVICE
from live.health.alerts import URLS_VARIABLE, AlertSender
from live.health.monitor import HealthMonitor
from tests.support.clocks.virtual import VirtualClock

TEXT = (ROOT / "RUNBOOK.md").read_text(encoding="utf-8")
DEPLOY = ROOT / "deploy"
GAP = "…"
"""Stands for what differs from case to case."""
FEWEST_LETTERS = 12
"""Of a message that says anything by itself."""
TELLING = {"Notice", "send"}
LOGGING = {"warning", "error", "critical"}
PLACEHOLDER = re.compile(r"%[-+ #0]*\d*(?:\.\d+)?[a-z]")
ERRORS = {name for name, item in vars(core.errors).items() if isinstance(item, type)}


def text_of(node: ast.expr) -> str:
    """Return the text of an expression with a gap for everything that is not constant."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(text_of(part) for part in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return text_of(node.left) + text_of(node.right)
    return GAP


def messages_in(source: str) -> Iterator[str]:
    """Yield what a source raises, logs as a warning or worse, and tells a person."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "text":
            yield text_of(node.value)  # reported by whoever made it
        if isinstance(node, ast.Tuple) and node.elts and isinstance(node.elts[-1], ast.JoinedStr):
            yield text_of(node.elts[-1])
        if not isinstance(node, ast.Call) or not node.args:
            continue
        name = getattr(node.func, "id", getattr(node.func, "attr", ""))
        if name == "Condition":
            yield text_of(node.args[0])
            yield text_of(node.args[2])
        elif name in ERRORS | TELLING:
            yield text_of(node.args[0])
        elif name in LOGGING:
            parts = text_of(node.args[0]).split("%%")
            yield "%".join(PLACEHOLDER.sub(GAP, part) for part in parts)


@functools.cache
def messages() -> frozenset[str]:
    """Return every message of live trading."""
    sources = [*sorted((ROOT / "live").rglob("*.py")), ROOT / "live_trade.py"]
    found = {text for path in sources for text in messages_in(path.read_text(encoding="utf-8"))}
    return frozenset(found | set(_ADVICE.values()))


def quoted() -> list[str]:
    """Return the messages in the first column of the runbook's tables of messages."""
    section = TEXT[TEXT.index("## What to do when it says") :]
    section = section[: section.index("\n## ", 5)]
    return re.findall(r"^\| `([^`]+)` \|", section, re.MULTILINE)


def commands(text: str) -> list[list[str]]:
    """Return the calls of ``live_trade.py`` in the code blocks of a document."""
    blocks = re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    found = [line.partition("python3 live_trade.py")[2] for line in lines]
    return [shlex.split(rest.rstrip('"')) for rest in found if rest]


def cells(heading: str, column: int = 0) -> list[str]:
    """Return what stands in backticks in a column of the table under the header ``heading``."""
    table = TEXT[TEXT.index(f"| {heading} |") :].partition("\n\n")[0]
    rows = [line.split(" | ")[column] for line in table.splitlines()[2:]]
    return [name for row in rows for name in re.findall(r"`([^`]+)`", row)]


# --- messages -----------------------------------------------------------------------------------


@pytest.mark.slow
def test_every_message_quoted_is_one_of_the_program() -> None:
    whole = {
        text for path in (ROOT / "live").rglob("*.py") for text in all_texts(path)
    } | messages()
    assert len(quoted()) > 100
    for row in quoted():
        assert any(row in text for text in whole), row


def all_texts(path: Path) -> set[str]:
    """Return every text of a source, with gaps."""
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    kinds = (ast.Constant, ast.JoinedStr, ast.BinOp)
    return {text_of(node) for node in nodes if isinstance(node, kinds)}


def test_every_message_of_the_program_has_a_row() -> None:
    rows = quoted()
    for text in messages():
        if sum(letter.isalpha() for letter in text) >= FEWEST_LETTERS:
            assert any(row in text for row in rows), text


def test_a_message_is_found_however_it_is_reported() -> None:
    source = """
raise StateError(f"the disk {name} is full" + rest)
_LOG.warning("%d of %.1f %% are used", a, b)
events.publish(Notice(f"{qty:g} are gone"))
text = "reported later"
_LOG.info("not looked at")
"""
    assert set(messages_in(source)) == {
        f"the disk {GAP} is full{GAP}",
        f"{GAP} of {GAP} % are used",
        f"{GAP} are gone",
        "reported later",
    }


# --- commands, files, fields, settings ----------------------------------------------------------


@pytest.mark.parametrize("path", [ROOT / "RUNBOOK.md", README], ids=lambda path: path.name)
def test_the_commands_shown_can_be_parsed(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(commands(text)) > 4
    for command in commands(text):
        live_trade.build_parser().parse_args(command)


def test_every_flag_is_explained() -> None:
    for action in live_trade.build_parser()._actions:  # noqa: SLF001 - argparse shows them no other way
        if "--help" not in action.option_strings:
            assert any(option in TEXT for option in action.option_strings), action.option_strings


def test_every_setting_is_explained() -> None:
    assert sorted(cells("setting")) == sorted(LIVE_CONFIG)


def test_every_field_of_the_health_file_is_explained(tmp_path: Path) -> None:
    clock = VirtualClock(1_700_000_000_000)
    monitor = HealthMonitor("BTCUSDT", tmp_path, LIVE_CONFIG, clock, AlertSender((), ""))
    monitor.check()
    written = json.loads(monitor.path.read_text(encoding="utf-8"))
    assert sorted(cells("field")) == sorted(written)


def test_every_exit_code_is_explained() -> None:
    for code in (0, 1, 2, 3, 4, 130):
        assert f"**{code}**" in TEXT


def test_what_the_help_promises_to_explain_is_there() -> None:
    for text in (KEY, SECRET, "GRID_ALERT_URLS", "compute_portfolio_var", "--accept-code-change"):
        assert text in TEXT


def test_every_link_leads_somewhere() -> None:
    pages = {"": TEXT, "README.md": README.read_text(encoding="utf-8")}
    links = re.findall(r"\]\(([^)]+)\)", TEXT)
    assert links
    for link in links:
        page, _, anchor = link.partition("#")
        headings = {
            re.sub(r"[^a-z0-9 -]", "", line.lower().lstrip("# ")).replace(" ", "-")
            for line in pages[page].splitlines()
            if line.startswith("#")
        }
        assert anchor in headings, link


def test_the_files_named_exist() -> None:
    for name in re.findall(r"(deploy/[\w@.-]+\w|\.env\.example|CHANGELOG\.md)", TEXT):
        assert (ROOT / name).exists(), name


# --- service and image --------------------------------------------------------------------------


def unit() -> configparser.ConfigParser:
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.read(DEPLOY / "grid-strategy@.service", encoding="utf-8")
    return parser


def test_the_unit_starts_what_there_is() -> None:
    service = unit()["Service"]
    python, script, *arguments = shlex.split(service["ExecStart"])
    assert python == f"{service['WorkingDirectory']}/.venv/bin/python"
    assert (ROOT / script).exists()
    options = shlex.split("--testnet --capital 500 --leverage 2")
    place = arguments.index("$GRID_OPTIONS")
    args = live_trade.build_parser().parse_args(
        ["BTC" if word == "%i" else word for word in arguments[:place]] + options
    )
    assert (args.coin, args.resume, args.yes) == ("BTC", True, True)


def test_the_unit_stops_in_order_and_leaves_bad_ends_alone() -> None:
    service = unit()["Service"]
    assert service["KillSignal"] == "SIGTERM"
    assert service["RestartPreventExitStatus"].split() == ["3", "4"]
    assert (service["Restart"], unit()["Unit"]["StartLimitIntervalSec"]) == ("on-failure", "0")
    assert int(service["TimeoutStopSec"]) >= 60
    assert "MemoryDenyWriteExecute" not in service
    for folder in ("data", ".numba_cache"):
        assert f"{service['WorkingDirectory']}/{folder}" in service["ReadWritePaths"].split()


DOCKERFILE = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
COMPOSE = (DEPLOY / "docker-compose.yml").read_text(encoding="utf-8")


def test_the_image_is_slim_has_a_user_of_its_own_and_a_volume() -> None:
    lines = DOCKERFILE.splitlines()
    assert {"ARG BASE=python:3.11-slim", "FROM ${BASE}"} <= set(lines)
    assert lines.index("USER grid") < next(i for i, x in enumerate(lines) if x.startswith("ENTRY"))
    assert "VOLUME /app/data" in lines
    assert "STOPSIGNAL SIGTERM" in lines
    assert 'CMD ["python", "deploy/healthcheck.py"]' in DOCKERFILE
    assert 'ENTRYPOINT ["python", "live_trade.py"]' in lines


def test_the_image_holds_what_it_copies() -> None:
    copied = re.findall(r"^COPY (?:--chown=\S+ )?(.+) \S+$", DOCKERFILE, re.MULTILINE)
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
    names = [name for line in copied for name in line.split()]
    assert {"live_trade.py", "main.py", "config.py", "live", "core", "engine"} <= set(names)
    for name in names:
        assert (ROOT / name).exists(), name
        assert name.partition("/")[0] not in ignored, name


def test_the_image_installs_the_lock_and_nothing_else() -> None:
    installs = re.findall(r"pip install .*", DOCKERFILE)
    assert len(installs) == 1
    assert "--require-hashes" in installs[0]
    assert "requirements.lock" in installs[0]


def test_the_composition_starts_what_there_is() -> None:
    match = re.search(r"command: (\[.*\])", COMPOSE)
    assert match is not None
    args = live_trade.build_parser().parse_args(json.loads(match[1]))
    assert args.testnet, "an example must not trade real money"
    assert args.resume
    assert args.yes
    for text in ("dockerfile: deploy/Dockerfile", "btc:/app/data", "init: true"):
        assert text in COMPOSE


def test_the_image_runs_code_it_cannot_change() -> None:
    assert "--chown" not in DOCKERFILE
    owned = re.findall(r"chown grid:grid (\S+)", DOCKERFILE)
    assert owned == ["data", "/var/cache/gridstrategy"]


def test_the_composition_gives_the_container_nothing_it_does_not_need() -> None:
    for line in (
        "read_only: true",
        "cap_drop: [ALL]",
        'security_opt: ["no-new-privileges:true"]',
        "mem_limit: 2g",
        "pids_limit: 128",
        "core: 0",
    ):
        assert re.search(rf"^ +{re.escape(line)}$", COMPOSE, re.MULTILINE), line
    assert "env_file" not in COMPOSE, "docker inspect shows an environment"
    for name in (KEY, SECRET, URLS_VARIABLE):
        assert f"{name}_FILE: /run/secrets/{name.lower()}" in COMPOSE
        assert f"file: ../secrets/{name.lower()}" in COMPOSE


def test_the_unit_is_hardened_and_its_environment_holds_no_key() -> None:
    text = (DEPLOY / "grid-strategy@.service").read_text(encoding="utf-8")
    service = text[text.index("[Service]") :]
    for line in (
        "LimitCORE=0",
        "UMask=0077",
        "NoNewPrivileges=true",
        "CapabilityBoundingSet=",
        "SystemCallFilter=@system-service",
        "ProtectProc=invisible",
        "PrivateUsers=true",
        "RestrictNamespaces=true",
    ):
        assert f"\n{line}\n" in service, line
    for name, credential in ((KEY, "key"), (SECRET, "secret"), (URLS_VARIABLE, "alerts")):
        assert f"{name}_FILE=%d/{credential}" in service
        assert f"LoadCredential={credential}:/etc/grid-strategy/%i.{credential}" in service


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_systemd_judges_the_unit_to_be_well_protected(tmp_path: Path) -> None:
    unit_file = tmp_path / "grid-strategy@BTC.service"
    shutil.copy(DEPLOY / "grid-strategy@.service", unit_file)
    done = subprocess.run(  # noqa: S603 - a fixed command
        ["systemd-analyze", "security", "--offline=yes", "--no-pager", str(unit_file)],  # noqa: S607
        capture_output=True,
        text=True,
        check=False,
    )
    score = re.search(r"exposure level for \S+: ([0-9.]+)", done.stdout)
    if score is None:
        pytest.skip("this systemd-analyze cannot judge files")
    assert float(score[1]) <= 2.0


def test_secrets_stay_out_of_image_and_history() -> None:
    for name in (".dockerignore", ".gitignore"):
        lines = (ROOT / name).read_text(encoding="utf-8").split()
        assert {".env", "data"} & set(lines) >= {".env"}
        assert "data" in lines or "data/" in lines


def test_the_example_of_a_key_file_holds_names_and_no_values() -> None:
    lines = (ROOT / ".env.example").read_text(encoding="utf-8").splitlines()
    variables = [line for line in lines if line and not line.startswith("#")]
    assert variables == [f"{KEY}=", f"{SECRET}=", "GRID_ALERT_URLS=", "GRID_ALERT_URLS_SECOND="]


# --- the health check ---------------------------------------------------------------------------


def load(name: str, path: Path) -> Any:
    """Return the module in ``path``, which is in no package."""
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


healthcheck: Any = load("healthcheck", DEPLOY / "healthcheck.py")
NOW = 1_700_000_000_000


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ({"status": "OK", "updated_at": NOW - 30_000}, ""),
        ({"status": "WARN", "updated_at": NOW}, ""),
        ({"status": "OK", "updated_at": NOW - SILENT_MS - 1_000}, "no sign of life for 121 s"),
        ({"status": "STOPPED", "updated_at": NOW}, "the session has stopped"),
        ({"status": "OK"}, "cannot be read"),
        ([], "cannot be read"),
    ],
)
def test_the_health_check_knows_who_lives(body: Any, found: str) -> None:
    problem = healthcheck.problem(json.dumps(body), NOW)
    assert problem == found if not found else found in problem
    assert healthcheck.SILENT_MS == SILENT_MS


def test_the_health_check_takes_the_newest_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert healthcheck.main([]) == 1
    assert "there is no health file" in capsys.readouterr().out
    old, new = (tmp_path / "data/live_state" / name for name in ("testnet", "dry"))
    for folder, status in ((old, "STOPPED"), (new, "OK")):
        folder.mkdir(parents=True)
        body = {"status": status, "updated_at": 10**15}
        (folder / "BTCUSDT_health.json").write_text(json.dumps(body))
    os.utime(old / "BTCUSDT_health.json", (1, 1))
    assert healthcheck.main([]) == 0
    assert healthcheck.main([str(old / "BTCUSDT_health.json")]) == 1
    assert healthcheck.main(["nowhere"]) == 1
