"""Compilers: what is written in another way because XLA compiles the natural one badly, each with a switch."""
