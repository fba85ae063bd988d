"""Sandboxed plugins, killed at random frames."""
