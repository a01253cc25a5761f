"""Functions as flat programs: tracing, the SSA form, evaluation and activity."""
