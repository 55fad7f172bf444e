"""Serves artifacts over HTTP: a page for people, and an interface for programs.

app       routes, and the answer to every error
bodies    reads the images of a request, within limits
batches   gathers images of all connections into batches and computes them in threads
models    one served artifact, and its replacement when the folder changes
page      the page, the report and the documentation of the interface
metrics   figures for Prometheus
server    the socket, the signals and slow connections
"""
