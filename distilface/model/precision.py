"""Which numbers of 16 bits are worth using on this machine."""

import torch


def has_bf16() -> bool:
    """Return whether this machine multiplies bf16 matrices in hardware."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return bool(torch.cpu._is_avx512_bf16_supported() and torch.ops.mkldnn._is_mkldnn_bf16_supported())


def uses_bf16(choice: str) -> bool:
    """Return whether ``auto`` (where the machine has it), ``yes`` or ``no`` means autocast to bf16 here."""
    return has_bf16() if choice == "auto" else choice == "yes"


def uses_fp16(choice: str) -> bool:
    """Return whether ``auto`` means autocast to fp16 here: on a GPU that multiplies no bf16, as those before Ampere."""
    return choice == "auto" and torch.cuda.is_available() and not has_bf16()
