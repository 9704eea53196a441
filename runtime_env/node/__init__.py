"""A node's part: where fetched and unpacked things lie, what may be removed, and how a bundle gets there."""
