"""The command line: ``python -m supervm_rt``. Exit status 0: done; 1: failed; 2: called or configured wrongly."""

from supervm_rt.cli.main import main

__all__ = ["main"]
