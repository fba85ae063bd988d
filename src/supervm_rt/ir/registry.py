"""Finds the translator of a chain family."""

from __future__ import annotations

from collections.abc import Mapping

from supervm_rt.errors import ConfigurationError
from supervm_rt.ir.bitcoin import BitcoinTranslator
from supervm_rt.ir.dev import DevTranslator
from supervm_rt.ir.translator import Translator


def supported_families() -> tuple[str, ...]:
    """The families that have a translator: what a manifest's ``chain`` may be."""
    return ("bitcoin", "dev")


def translator_for(family: str, settings: Mapping[str, object]) -> Translator:
    """The translator of a family. ``bitcoin`` reads settings["network"] (main if not set); others are ignored.

    Raises ConfigurationError, naming what there is.
    """
    if family == "bitcoin":
        network = settings.get("network", "main")
        if not isinstance(network, str):
            raise ConfigurationError(f"network is {network!r}", remedy="give the network's name as text")
        return BitcoinTranslator(network)
    if family == "dev":
        return DevTranslator()
    raise ConfigurationError(
        f"there is no translator for chains of the family {family!r}", remedy=f"use one of {', '.join(supported_families())}"
    )
