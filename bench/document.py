"""``docs/performance.md``, generated from one run. Its text is here, its numbers are measured."""

from collections.abc import Mapping

from bench.report import goals_table, tables
from bench.results import Results

_HEAD = """# Performance

`make performance` measured everything on this page in one run and wrote the page:

"""
_HOW = """
## How it is measured

A real Envoy with one worker runs in front of pods that answer at once (`direct_response` of a
second Envoy, whose cost is not counted). A load generator in a process of its own keeps a number of
HTTP/1.1 connections busy: each connection sends its next request when the previous one is answered.
The same load goes, in turn, through three kinds of listeners of the same Envoy:

- *no filter*: a header of the client names the pod.
- *no-op*: Envoy calls a server on the same transport that answers every message with CONTINUE. A
  header of the client names the pod.
- *router*: Envoy calls the router and forwards the request to the pod that the router names. The
  configuration is the output of `lora-router envoy-config`.

*CPU µs* is the CPU time of the router's process, user and system, divided by the number of
requests. *Envoy's CPU µs* is the same for Envoy. CPU time is comparable between runs on a busy
machine. Requests per second and latencies are not, because all processes share the cores listed
below. *Added* latency is the difference to *no filter* at the same point. With many connections on
few cores, latency is mostly queueing; the rows with one connection show the latency of a single
request. *Peak* is the largest resident memory of the process during the point.

The row *no-op* shows what the transport costs, and the row of the algorithm *random* shows the cost
of everything but a decision. The parts below are measured alone, in a loop, with warm caches.
*Whole request on the builtin transport, without sockets* is a complete request except for its
system calls. The rest of the process's CPU time is the event loop and the kernel. With 64
connections, one system call carries several requests. With one connection, each message is read and
written alone, by a process that was just woken on a core whose caches other processes have used in
the meantime. A server that decides nothing pays most of that cost, too.

Where the router handles fewer requests per second than a server that decides nothing, all processes
together have used up the cores: Envoy, the router, the load generator, and the Envoy of the pods.
The router's share is its CPU time; one million divided by it is the rate that one process can
handle.

Each dimension is varied alone, starting from one point. Every pod serves the same 10,000 adapters,
of which a thousand (as many as fit in 16 MB of prepared requests) are requested in turn. Every pod
has slots for all requests in flight, so no request is held. The pods are scraped once, at startup;
the cost of scraping is in a table of its own, and so is the cost of changes while requests are
held.

"""
_NOTES = {
    "The process": """
*Start to ready* is the time from exec to the first 200 of `/readyz`, with the metrics and models of
the pods read over HTTP. An *open stream* is a request in flight: decided, counted, and not ended.
Its memory is the growth of the process, divided by the number of streams. Before the measurement, a
fifth as many streams are open, so that memory left over from startup is in use. The streams are
opened without Envoy, on one connection.
""",
    "Scraping": """
Each scrape gets one of several pages that vLLM 0.32.0 served, 48 to 56 KB, chosen at random. The
share of a core is measured without requests. *Decision* is `lora_router_decision_seconds`,
interpolated within its buckets. *Answer* is the time from sending the body's message to reading the
answer, with one request at a time.
""",
    "Requests held, CPU µs": """
Pods of 4 slots, all of them taken, and held requests that each wait for another adapter with
`lora-placement`. A *release* is the end of a request: of one of several requests of its adapter (no
slot becomes free), or of the last one (its slot goes to the request that has waited longest). A
*scrape* and a *pod event* (of a pod that serves another model) let no held request go. After six
seconds the router closes slots for the requests that wait; the columns *held for 7 s* are measured
after that. *Longest timer* is the longest time for which a timer occupied the event loop meanwhile.
All figures include work that the router defers to the next iterations of the event loop, so that it
does not occupy the loop in one piece.
""",
}


def document(results: Results) -> str:
    """Return the page as Markdown."""
    machine, run = _listed(results.machine), _listed(results.run)
    parts = [f"{_HEAD}{run}\n\n", goals_table(results).markdown().replace("###", "##", 1), _HOW]
    parts.append(f"The machine and what ran on it, for {results.seconds / 60:.0f} minutes:\n\n")
    parts.append(f"{machine}\n\n## Tables\n\n")
    for table in tables(results):
        parts += [table.markdown(), _NOTES.get(table.title, ""), "\n"]
    return "".join(parts).rstrip() + "\n"


def _listed(notes: Mapping[str, str]) -> str:
    return "\n".join(f"- {name}: {value}" for name, value in notes.items())
