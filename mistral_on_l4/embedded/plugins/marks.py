"""What tells a stand-in's state from an official plugin's: a property that only stand-ins write."""

MARK = "__standIn"
MARK_VALUE = "mistral-on-l4"
