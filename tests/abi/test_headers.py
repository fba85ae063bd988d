"""The headers compile alone, in both languages, and still mean what the released ones meant (clauses A10, V1)."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from supervm_rt._abi import STATUS_NAMES
from tests.abi.support import CURRENT_HEADERS, PLUGINS, RELEASED_HEADERS

HEADERS = sorted(path.name for path in (CURRENT_HEADERS / "supervm").glob("*.h"))
WARNINGS = ("-Wall", "-Wextra", "-Werror", "-pedantic")


def layout(headers: Path, folder: Path) -> list[str]:
    program = folder / "layout"
    subprocess.run(["gcc", "-std=c11", *WARNINGS, f"-I{headers}", str(PLUGINS / "layout.c"), "-o", str(program)], check=True)
    return subprocess.run([str(program)], check=True, capture_output=True, text=True).stdout.splitlines()


@pytest.mark.parametrize(("compiler", "standard", "language"), [("gcc", "c11", "c"), ("g++", "c++17", "c++")])
@pytest.mark.parametrize(
    ("headers", "name"),
    [
        pytest.param(headers, name, id=f"{which}-{name}")
        for which, headers in (("current", CURRENT_HEADERS), ("released", RELEASED_HEADERS))
        for name in sorted(path.name for path in (headers / "supervm").glob("*.h"))
    ],
)
def test_each_header_compiles_alone(
    name: str, compiler: str, standard: str, language: str, headers: Path, tmp_path: Path
) -> None:
    source = tmp_path / "alone"
    source.write_text(f'#include "supervm/{name}"\n')
    command = [compiler, f"-std={standard}", f"-x{language}", *WARNINGS, "-fsyntax-only", f"-I{headers}", str(source)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("name", HEADERS)
def test_headers_need_nothing_beyond_stdint_and_stddef(name: str) -> None:
    lines = (CURRENT_HEADERS / "supervm" / name).read_text().splitlines()
    included = {line.split()[1] for line in lines if line.startswith("#include")}
    assert included <= {"<stdint.h>", "<stddef.h>"} | {f'"{header}"' for header in HEADERS}


def test_status_names_are_those_of_the_header() -> None:
    text = (CURRENT_HEADERS / "supervm" / "status.h").read_text()
    defined = re.findall(r"^#define SUPERVM_(\w+) \(?(-?\d+)\)?$", text, re.MULTILINE)
    assert {int(number): name for name, number in defined} == STATUS_NAMES
    assert len(defined) == len(STATUS_NAMES)


def test_the_current_headers_agree_with_the_released_ones(tmp_path: Path) -> None:
    (tmp_path / "released").mkdir()
    (tmp_path / "current").mkdir()
    released = layout(RELEASED_HEADERS, tmp_path / "released")
    current = layout(CURRENT_HEADERS, tmp_path / "current")
    assert len(released) > 60
    assert current == released
