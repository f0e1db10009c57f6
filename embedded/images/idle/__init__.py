"""Programs of a rehearsal that stand for controllers and exporters: they run, and do nothing."""
