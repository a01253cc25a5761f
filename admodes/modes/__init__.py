"""The modes: orders in which local Jacobians are multiplied."""
