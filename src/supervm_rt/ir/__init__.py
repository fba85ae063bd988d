"""Raw blocks to the chain-neutral IR, verified; IR to values and to JSON. Pure: no loop, socket, clock or database."""
