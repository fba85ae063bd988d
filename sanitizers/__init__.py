"""The native code under sanitizers: ``make test-sanitize``."""
