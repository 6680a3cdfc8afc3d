"""`python -m handful` is the command `handful`."""

from handful.cli.main import main

main()
