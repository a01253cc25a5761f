"""The choice of a way: the candidates with their costs, and the decision between them."""
