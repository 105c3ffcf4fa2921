"""Who runs when: the policies of ``headrace.scheduling`` over real traces and a model of an engine."""
