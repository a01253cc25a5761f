"""Elimination on graphs: the order in which local partial derivatives are multiplied, and formulas for the products."""
