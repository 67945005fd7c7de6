"""What goes over the wire: Nex messages, subjects, events, and the start request of a function."""
