"""What the tests ask, where the client takes OpenAI's own format."""

MESSAGES = [{"role": "user", "content": "Hello"}]
TOOL = {
    "name": "weather",
    "strict": True,
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
        "additionalProperties": False,
    },
}
CHAT_TOOLS = [{"type": "function", "function": TOOL}]
SOUND = ("sound.wav", b"RIFF sound", "audio/wav")
