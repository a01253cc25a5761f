"""The functions that users call: Jacobians, Hessians, their parts, and plans; from a call to a task and back."""
