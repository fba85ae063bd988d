"""Frozen values that every layer shares. Standard library only; no behaviour beyond what a value says of itself."""
