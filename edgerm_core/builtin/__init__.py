"""Built-in plugins: each a file that uses the same hooks as any other plugin."""
