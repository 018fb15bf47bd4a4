"""One file a command of the command line; each holds a function whose arguments are the command's options."""
