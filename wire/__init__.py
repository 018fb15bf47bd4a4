"""What crosses a process boundary: messages, codec, sockets, and the contracts that plug-ins meet."""
