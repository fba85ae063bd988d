"""``demo``: the shipped plugin mirrors the shipped sample chain, so that a newcomer sees the whole way of a block."""

from __future__ import annotations

import argparse
import shlex
import sys
import tempfile
from pathlib import Path
from typing import Any

from supervm_rt.cli.mirror import show
from supervm_rt.cli.node import exit_status, run_node
from supervm_rt.cli.output import add_json_option
from supervm_rt.errors import HostError
from supervm_rt.model.manifest import RestartPolicy
from supervm_rt.runtime import PluginConfig, RuntimeConfig
from supervm_rt.trust.policy import PolicyLevel

_PACKAGE = Path(__file__).resolve().parent.parent
SAMPLE_CHAIN = _PACKAGE / "demo" / "sample-chain"


def add_commands(commands: Any) -> None:
    """Adds the command."""
    parser: argparse.ArgumentParser = commands.add_parser("demo", help="mirror the sample chain that a real bitcoind wrote")
    parser.add_argument("--store", type=Path, metavar="FILE", help="the store (default: a new one in a temporary folder)")
    add_json_option(parser, "a summary, as the last line,")
    parser.set_defaults(command=_demo)


def shipped_plugin(name: str) -> Path:
    """The folder of a plugin that comes with supervm-rt. Raises HostError where it is not there."""
    folder = (_PACKAGE / "plugins" / name).resolve()
    if not (folder / "plugin.yaml").is_file():
        raise HostError(f"the plugin {name} is not installed", remedy="install supervm-rt anew, or run make in a clone of it")
    return folder


def _demo(options: argparse.Namespace) -> int:
    store: Path = options.store or Path(tempfile.mkdtemp(prefix="supervm-demo-")) / "store.db"
    plugin = shipped_plugin("bitcoin-blockfiles")
    print("Mirroring the sample chain: a Bitcoin regtest chain that a real bitcoind wrote, reorgs included.", file=sys.stderr)
    config = RuntimeConfig(
        store=store,
        policy=PolicyLevel.DEV,
        plugins=(
            PluginConfig(
                path=plugin,
                restart=RestartPolicy.NEVER,
                settings={"blocks_dir": str(SAMPLE_CHAIN / "blocks"), "network": "regtest"},
            ),
        ),
    )
    result = run_node(config, until_idle=True)
    status = exit_status(result)
    if status != 0:
        return status
    show(result, as_json=options.json)
    if not options.json:
        command = f"{shlex.quote(_short(sys.executable))} -m supervm_rt"
        name = shlex.quote(_short(str(store)))
        tip = result.chains["bitcoin"].tip
        print("\nTry next:")
        print(f"  {command} chain events bitcoin --store {name} --after 100 --limit 20")
        print(f"  {command} chain block bitcoin {tip.height if tip else 0} --store {name} --json")
        print(f"  {command} plugin inspect {shlex.quote(_short(str(plugin)))}")
    return 0


def _short(path: str) -> str:
    """Relative to the working directory where that is below it. Links are not followed: a virtual environment's python is one."""
    try:
        return str(Path(path).absolute().relative_to(Path.cwd()))
    except (ValueError, OSError):
        return path
