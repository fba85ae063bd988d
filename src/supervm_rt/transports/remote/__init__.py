"""Remote plugins over gRPC (clauses T3, R1 to R4): the only room that sees asyncio."""
