"""What people would otherwise use, used as its documentation says."""
