"""Linear maps between tuples of arrays: the local Jacobians that every AD mode multiplies."""
