"""Discovery: where the pods come from."""
