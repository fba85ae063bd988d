"""How a plugin reaches the host. Each way is a package of its own and a stranger to the others."""
