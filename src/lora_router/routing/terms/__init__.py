"""Terms of cost: what it costs to send a request to a pod. Algorithms add them up.

All terms have one unit, *requests of load*: what one more request in flight on a pod costs. What is
measured in seconds costs ``REQUESTS_A_SECOND`` for each second. A cost in requests can be compared
with the counts that people see on the pages and that other algorithms use, and pods with the same
number of requests have exactly the same cost, so that rendezvous hashing decides between them.

- ``load``: requests in flight, prompt tokens on their way, the use of the KV cache, and how slow
  the pod is.
- ``adapter``: the time of bringing the adapter into a slot of the pod.
- ``prefix``: the prompt tokens that the pod has to process and the best other pod would not.
- ``slot``: a further slot for an adapter that has one, by how few slots are left in the fleet.
- ``peers``: reductions and waits where several routers decide about the same pods.

``weights`` has the factors that settings can change. ``python -m bench.terms`` shows what each term
is worth by leaving it out.
"""
