"""What answers over HTTP. Views decide nothing: they ask the module that owns the question."""
