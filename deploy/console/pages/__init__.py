"""The console's pages, one in each module: each builds its elements once and fills them at every new snapshot."""
