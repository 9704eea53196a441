"""`python -P -m deploy.cli`: the command line without the console script; how the launcher starts its processes."""

from deploy.cli import main

main()
