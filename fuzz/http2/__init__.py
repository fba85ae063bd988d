"""Invariant: as in ``judging``: whatever one peer writes to the gRPC server's socket, nobody but this peer has any of it."""
