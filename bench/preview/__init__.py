"""What a preview of an AWS stack costs: `make bench-preview`."""
