"""Command line: main, one module per command, the public Python functions (`api`), and what is printed (`views`).

May import every other room. `main` imports the module of a command only when that command is named, so that
`tune-cure --help` does not wait for torch.
"""
