"""Deliberate faults: small mutations of the code, each of which the tests or a fuzzer must catch."""
