"""Invariant: as in ``comparison``: the decoder of remote frames reads, and refuses, what Google's protobuf does."""
