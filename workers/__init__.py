"""What runs in and around a Ray cluster: pods, heads, actor pools, the executor, and the channel that a lane reaches them by."""
