"""Sinks: code that wants events in batches, and keeps the cursor itself, with what the events led to."""

from supervm_rt.sinks.interface import Sink, drain

__all__ = ["Sink", "drain"]
