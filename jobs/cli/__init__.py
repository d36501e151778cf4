"""The command line: flags, help, console output, interrupts."""
