"""What was measured of a service, as documents that are kept: their shape, and whether they can be true."""
