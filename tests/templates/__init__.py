"""Tests of what people deploy: the files under templates/, run by the real programs."""
