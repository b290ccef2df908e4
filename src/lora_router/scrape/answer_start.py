"""The beginning of a pod's answer to a call, which may be of any length."""

import aiohttp


async def answer_start(response: aiohttp.ClientResponse, most: int) -> bytes:
    """Return the first bytes of an answer, and read no more.

    Args:
        response: The answer.
        most: The number of bytes, at most.

    Raises:
        aiohttp.ClientError: The connection broke before that.
        TimeoutError: The bytes did not arrive in the time of the session.
    """
    start = b""
    async for piece in response.content.iter_any():
        start += piece[: most - len(start)]
        if len(start) >= most:
            break
    return start
