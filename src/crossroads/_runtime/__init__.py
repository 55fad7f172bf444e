"""The process that Crossroads runs in: the machine, Keras' setup, process-wide settings, and faults that are not bugs."""
