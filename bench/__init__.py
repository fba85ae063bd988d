"""How fast the native path is, beside what people would otherwise use: ``make bench``."""
