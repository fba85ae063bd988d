"""Invariant: as in ``target``: the parser accepts what python-bitcoinlib accepts, and finds the same in it."""
