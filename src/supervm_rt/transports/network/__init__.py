"""supervm.net/1, the host's side: it resolves, checks, dials and hands over, for plugins in process and in a child alike."""
