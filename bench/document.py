"""``docs/performance.md``, made from one run: nothing in it is typed by hand but the words here."""

from bench.report import goals_table, tables
from bench.results import Results

_HEAD = """# What the router costs

`make performance` measured all of this in one run and wrote this page.

"""
_HOW = """
## How it is measured

A real Envoy with one worker, in front of pods that answer at once (`direct_response` of a second
Envoy, which counts for nothing here). A load generator in a process of its own keeps a number of
HTTP/1.1 connections busy: each sends its next request when the last is answered. The same load
goes, in turn, through three kinds of listeners of the same Envoy:

- *no filter*: the client's header says which pod;
- *no-op*: Envoy asks a server on the same transport that answers every message with CONTINUE, and
  the client's header says which pod;
- *router*: Envoy asks the router, and goes where that says. The configuration is what
  `lora-router envoy-config` prints.

*CPU µs* is the CPU time of the router's process, user and system, divided by the requests;
*Envoy's* likewise. It holds on a busy machine where requests per second and latencies do not: all
processes share the cores named below. *Added* is beyond *no filter* at the same point. With many
connections on few cores latency is a queue's: one connection shows what a single request waits.
*Peak* is the most memory that the process had during the point.

Where the time goes: *no-op* is what the transport costs, *random* what everything but a decision
does. The parts below are measured alone, in a loop, with warm caches; *conversation on the builtin
transport* is all of a request but its sockets. What the process takes beyond that is the event
loop's and the kernel's: with 64 connections a few system calls carry many requests. With one
connection each message is read and written alone, by a process that has just been woken on a core
whose caches others have used since: a server that decides nothing pays the most of that too.

Where requests per second fall short of a server that decides nothing, it is all processes together
that have no more time: Envoy, the router, the load generator and the pods' Envoy share the cores.
The router's part of that is its CPU time; a million divided by it is what one process could carry.

From one point each dimension is varied alone. Every pod serves the same 10,000 adapters, of which a
thousand (as many as fit in 16 MB of requests) are asked for in turn, and has slots for all that are
in flight, so that no request is held: that would be another path. The pods are scraped once, at the
start; what scraping costs has its own table.

"""
_NOTES = {
    "The process": """
Start to ready is from exec to the first 200 of `/readyz`, with the pods' metrics and models read
over HTTP. An open stream is a request under way: decided, counted, and not ended; its memory is
what the process grew by, divided by the streams. A fifth as many are open before, so that what the
start left free is in use. They are opened without Envoy, on one connection.
""",
    "Scraping": """
Pages that vLLM 0.32.0 served, 48 to 56 KB, each time another by chance. The share of a core is
without any request. *Decision* is `lora_router_decision_seconds`, interpolated within its buckets;
*answer* is from sending the body's message to reading the answer, one request at a time.
""",
}


def document(results: Results) -> str:
    """Return the page."""
    machine = "\n".join(f"- {name}: {value}" for name, value in results.machine.items())
    parts = [_HEAD, goals_table(results).markdown().replace("###", "##", 1), _HOW]
    parts.append(f"The machine and what ran on it, for {results.seconds / 60:.0f} minutes:\n\n")
    parts.append(f"{machine}\n\n## Tables\n\n")
    for table in tables(results):
        parts += [table.markdown(), _NOTES.get(table.title, ""), "\n"]
    return "".join(parts).rstrip() + "\n"
