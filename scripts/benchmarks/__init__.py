"""What `scripts/bench` is made of: inputs, measuring, and one module for each group of rows."""
