"""What every test of this suite relies on."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# How long an example takes says more about the machine's load than about the code; no result may depend on it.
settings.register_profile("supervm", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
settings.load_profile("supervm")
