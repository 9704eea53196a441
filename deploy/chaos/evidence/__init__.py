"""What a run leaves to judge it by: the user code's own record, the kernel's counters, the results as any reader sees them."""
