"""
The command line: one verb per file, loaded by name (main.py); what verbs share is in common.py.

Promise: every verb has --json and an honest exit code; what is refused is one sentence.
"""

__all__: list[str] = []
