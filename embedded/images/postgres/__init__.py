"""PostgreSQL's image: a real PostgreSQL that is installed on this machine, started as the image starts its own."""
