"""The poolings made of sentence-transformers' own modules."""

import pytest
from sentence_transformers.base.modules import Transformer
from tiny import tiny_albert, tiny_backbone

from distilface.model.pooling import pooling_modules
from distilface.settings import InputError


def albert(path, **layers):
    return Transformer(str(tiny_albert(path, **layers)))


def test_unknown_pooling_names_the_nearest(tmp_path):
    with pytest.raises(InputError, match="unknown pooling 'last': did you mean 'last4'"):
        pooling_modules(Transformer(str(tiny_backbone(tmp_path))), "last")


def test_last4_of_two_layers_is_refused(tmp_path):
    with pytest.raises(InputError, match="needs 4 layers or more and this encoder has 2; use mean"):
        pooling_modules(Transformer(str(tiny_backbone(tmp_path))), "last4")


def test_last4_of_an_albert_counts_every_pass(tmp_path):
    transformer = albert(tmp_path, num_hidden_layers=6, num_hidden_groups=3, inner_group_num=1)
    transformer.train()
    last4 = pooling_modules(transformer, "last4")[0]
    assert (last4.layer_start, len(last4.layer_weights)) == (3, 4)
    assert transformer.model.training


def test_last4_of_layers_that_transformers_4_counts_otherwise_is_refused(tmp_path):
    """Transformers 5 gives a state a layer, 4 gives one a group: the same folder would pool other layers."""
    transformer = albert(tmp_path, num_hidden_layers=4, num_hidden_groups=1, inner_group_num=3)
    with pytest.raises(InputError, match="4 layers that gives 13 hidden states"):
        pooling_modules(transformer, "last4")
    assert not getattr(transformer.model.config, "output_hidden_states", False)
