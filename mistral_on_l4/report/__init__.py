"""The report of a deployment: services side by side, measured beside planned. The same inputs give the same bytes."""
