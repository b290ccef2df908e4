"""``python -m lora_router`` is ``lora-router``."""

from lora_router.cli import main

main()
