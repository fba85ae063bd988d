"""Invariant: whatever ends a run, at whichever call that changes or syncs a file, the store equals a prefix of the input, holds
at least what was acknowledged, and a further run brings it to the same end as an undisturbed one.
"""
