"""`rayline chaos`: parts of the platform are killed, frozen and starved under load; a foreign reader counts the results."""
