"""The machine and the process: process groups, CPU settings, timing, random numbers by key."""
