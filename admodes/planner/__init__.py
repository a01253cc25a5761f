"""The planner: which order of multiplying the local Jacobians is the cheapest."""
