"""`rayline top`: the platform on a terminal, alive."""
