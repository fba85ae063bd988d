"""What ``plugin inspect`` and the process it asks agree on: an answer stands behind its marker, after all that is printed."""

ANSWER = b"\n---- plugin_get_manifest_json ----\n"
FAULT = b"\n---- fault ----\n"
