"""What a door (pipelines, conversation, command line, page, server, evaluation, training runs) may know of a model.

A family knows its tokens, tensors, sampling and training; a door knows this room and nothing else of a family.
"""
