"""`tillstream bench`: speed and memory, each figure beside a limit measured in the same run.

Not a test: it prints what it saw. Ratios travel between machines, absolute figures do not. Each benchmark runs in an
installation of its own (topics and database) on the stores of one stack, with only the roles that it measures.
"""
