"""`python -m recsae.cli` is `recsae`."""

from recsae.cli.app import main

main()
