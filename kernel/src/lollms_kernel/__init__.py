"""The kernel of the lollms server: contracts, configuration, scheduling and lifetimes, and nothing else."""
