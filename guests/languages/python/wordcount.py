"""Counts lines, words and bytes, as wc does."""
import sys

from wit_world import exports


class Run(exports.Run):
    def run(self) -> None:
        data = sys.stdin.buffer.read()
        print(data.count(b"\n"), len(data.split()), len(data))
