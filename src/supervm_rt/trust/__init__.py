"""Pure judgement of what may run: manifests, policy and grants. No loop, no socket, no clock."""
