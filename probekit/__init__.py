"""Which layer of an open-source LLM knows X, and how well can a cheap head read it?"""
