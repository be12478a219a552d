"""Publish a model folder on the Hugging Face Hub: checked, scored again, shown, asked for, then one commit.

    hf auth login
    python model_card/push_to_hub.py --folder models/mine --repo-id org/distilface --dry-run
    python model_card/push_to_hub.py --folder models/mine --repo-id org/distilface --tag v1

The same as ``distilface push``. It takes seconds and the time of the transfer, and ends in

    published: https://huggingface.co/org/distilface/commit/0123...
"""

from distilface.cli import main

if __name__ == "__main__":
    main("push")
