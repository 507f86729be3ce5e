"""Which BN policy suits the data: a grid of short runs, each policy at its own rate, compared seed by seed."""
