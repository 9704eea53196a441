"""What faults do to this machine, each undone at its end."""
