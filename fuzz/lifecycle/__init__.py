"""The lifecycle machine: plugins' lives, with failures, hangs and cancellations anywhere in them."""
