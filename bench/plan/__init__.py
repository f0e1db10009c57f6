"""What a plan costs, against the import of pydantic."""
