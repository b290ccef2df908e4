"""Published policies that only the simulator has, to compare with those that serve.

Each follows its source, which ``table`` names. They may know what a router does not know, such as
the speed of the pods, where their source measures it beforehand.
"""
