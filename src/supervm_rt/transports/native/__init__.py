"""Native plugins: a shared library behind the C ABI."""
