"""Campaigns that try to break the runtime: ``make fuzz MINUTES=n``. Each file begins with its invariant."""
