"""Prompts: templates, pairs that differ in one stated way, token ids with roles, and what a task calls its parts.

>>> from interp.prompts import Template
>>> Template("The {noun} is {color}. The {noun} is", answer=" {color}").slots
('noun', 'color')
"""

from interp.prompts.answered import AnsweredPrompts
from interp.prompts.pairing import Drop
from interp.prompts.pairs import PromptPair, PromptPairs
from interp.prompts.records import FilePrompts, PairColumns, read_pairs, read_prompts
from interp.prompts.template import Template
from interp.prompts.tokens import Prompts
from interp.prompts.vocabulary import Vocabulary

__all__ = [
    "AnsweredPrompts",
    "Drop",
    "FilePrompts",
    "PairColumns",
    "PromptPair",
    "PromptPairs",
    "Prompts",
    "Template",
    "Vocabulary",
    "read_pairs",
    "read_prompts",
]
