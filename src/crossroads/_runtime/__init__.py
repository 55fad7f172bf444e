"""Prepares the process that Crossroads runs in: the machine, Keras, and process-wide settings. Recognises its faults."""
