"""A slice of real observations that ships with the product, for the demo and the tests. Its rule and source:
README.md here.
"""

from pathlib import Path

__all__ = ["SLICE"]

SLICE = Path(__file__).parent  # chzzk_vod_views.csv.gz, chzzk_vods.csv.gz, expected.json
