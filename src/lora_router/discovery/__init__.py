"""Where the pods are: what each source of pods knows, as one full list or as events."""
