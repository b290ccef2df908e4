"""Reading pods: what their pages say, and reading them again and again."""
