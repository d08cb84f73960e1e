"""
The views that come with AuraStream: clips (clip.py, recap.py, clips.py), imports and the trail.

Promise: they are projections as anybody writes them; nothing else treats them otherwise.
"""

from aurastream.projections.built_in.clip import Clip, Pair
from aurastream.projections.built_in.clips import Clips, ClipSettings
from aurastream.projections.built_in.imports import Import, Imports
from aurastream.projections.built_in.recap import Recap, merged
from aurastream.projections.built_in.trail import Known, known_of_stories, known_of_subject, story_of

__all__ = [
    "Clip",
    "ClipSettings",
    "Clips",
    "Import",
    "Imports",
    "Known",
    "Pair",
    "Recap",
    "known_of_stories",
    "known_of_subject",
    "merged",
    "story_of",
]
