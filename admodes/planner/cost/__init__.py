"""The cost model: work counted from a program, and how long the machine takes for a unit of each kind."""
