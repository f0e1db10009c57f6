"""The stack's configuration: settings with their schema, images and names. Pure."""
