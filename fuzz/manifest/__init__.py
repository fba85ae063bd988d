"""Invariant: as in ``target``: any bytes give a manifest or a configuration, or an error that names what is wrong."""
