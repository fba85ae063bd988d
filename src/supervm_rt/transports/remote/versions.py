"""The libraries whose inside the server looks into, and the versions of them that it was read beside."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from packaging.specifiers import SpecifierSet
from packaging.version import InvalidVersion, Version

from supervm_rt.errors import HostError

CHECKED = {"grpclib": "0.4.9", "h2": "4.4.1", "hyperframe": "6.1.0", "hpack": "4.2.0"}
"""Later releases of the same minor version are let in, so that whoever runs a node gets their repairs; the node says so."""


def bounds(checked: str) -> str:
    """What is let in beside a version that was checked, as a requirement: ``>=4.4.1,<4.5``."""
    found = Version(checked)
    return f">={checked},<{found.major}.{found.minor + 1}"


def unchecked() -> list[str]:
    """Those that are installed and let in, and are not the ones that were checked: a line about each.

    Raises HostError for one that is not let in: it might well run, and not hold the bounds. What is not installed is left to
    whoever imports it.
    """
    found = []
    for name, checked in CHECKED.items():
        try:
            installed = version(name)
        except PackageNotFoundError:
            continue
        if not _let_in(installed, checked):
            raise HostError(
                f"gRPC is not served with {name} {installed}: the bounds on what peers may do were checked with {name} {checked}",
                remedy=f"pip install '{name}{bounds(checked)}'",
            )
        if installed != checked:
            found.append(f"{name} {installed} is installed; the bounds on what peers may do were checked with {name} {checked}")
    return found


def _let_in(installed: str, checked: str) -> bool:
    try:
        return Version(installed) in SpecifierSet(bounds(checked), prereleases=False)
    except InvalidVersion:
        return False
