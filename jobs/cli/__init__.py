"""The command line: the verbs' flags, help, interrupts, console."""
