"""`python -m bridge`: the command line, where another program owns the name `bridge`."""

from bridge.cli.main import main

if __name__ == "__main__":
    main()
