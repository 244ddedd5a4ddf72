"""Programs that the benchmarks measure or need, each for a process of its own."""
