"""The stack's Pulumi components, one to a file. Platforms answer where and how; the components are the same on all of them."""
