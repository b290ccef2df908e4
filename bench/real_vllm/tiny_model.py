"""Makes a tiny Llama with random weights, a tokenizer, and adapters. Runs in vLLM's environment.

    python tiny_model.py FOLDER ADAPTERS

The model has 2 layers, a hidden size of 128 and a vocabulary of 2,048. An adapter has rank 8 and
changes the query and value projections. What they answer has no meaning.
"""

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

_VOCABULARY, _HIDDEN, _LAYERS, _RANK = 2048, 128, 2, 8
_END = "</s>"
_TEMPLATE = "{% for each in messages %}{{ each.role }}: {{ each.content }}\n{% endfor %}"


def make(folder: Path, adapters: int) -> None:
    """Write ``base`` and ``a0`` to ``a<adapters - 1>`` into a folder."""
    torch.manual_seed(1)
    _write_base(folder / "base")
    for number in range(adapters):
        _write_adapter(folder / f"a{number}", str(folder / "base"))


def _write_base(folder: Path) -> None:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=_VOCABULARY,
        special_tokens=["<s>", _END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator([Path(__file__).read_text()], trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token=_END)
    fast.chat_template = _TEMPLATE
    fast.save_pretrained(folder)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=_VOCABULARY,
            hidden_size=_HIDDEN,
            intermediate_size=2 * _HIDDEN,
            num_hidden_layers=_LAYERS,
            num_attention_heads=4,
            num_key_value_heads=4,
            max_position_embeddings=2048,
        )
    )
    model.save_pretrained(folder)


def _write_adapter(folder: Path, base: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "base_model_name_or_path": base,
        "bias": "none",
        "lora_alpha": 16,
        "lora_dropout": 0.0,
        "peft_type": "LORA",
        "r": _RANK,
        "target_modules": ["q_proj", "v_proj"],
        "task_type": "CAUSAL_LM",
    }
    (folder / "adapter_config.json").write_text(json.dumps(config))
    weights = {}
    for layer in range(_LAYERS):
        for module in ("q_proj", "v_proj"):
            name = f"base_model.model.model.layers.{layer}.self_attn.{module}"
            weights[f"{name}.lora_A.weight"] = torch.randn(_RANK, _HIDDEN) * 0.02
            weights[f"{name}.lora_B.weight"] = torch.randn(_HIDDEN, _RANK) * 0.02
    save_file(weights, folder / "adapter_model.safetensors")


if __name__ == "__main__":
    make(Path(sys.argv[1]), int(sys.argv[2]))
