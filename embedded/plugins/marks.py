"""What stand-ins tell one another, and how their state differs from an official plugin's: by a property that only they write."""

MARK = "__standIn"
MARK_VALUE = "mistral-on-l4"

# Endpoint of a cluster that is only assumed to exist; nothing can listen on port 0.
ASSUMED_SERVER = "https://127.0.0.1:0"
