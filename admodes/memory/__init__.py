"""Memory of reverse mode: which blocks keep their tapes, a limit in bytes, a profile of what is kept."""
