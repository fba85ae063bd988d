"""Models of the ring, its doorbell and its lock, searched by spin; and whether they still say what the C code does."""
