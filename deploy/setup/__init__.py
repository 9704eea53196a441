"""Makes a clone ready to work in. Standard library only: it runs before anything is installed."""
