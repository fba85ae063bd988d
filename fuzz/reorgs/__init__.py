"""The reorg machine: random block trees through a real store, beside a plain model."""
