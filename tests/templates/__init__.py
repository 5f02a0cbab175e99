"""Tests of the files under templates/, run by the real programs."""
