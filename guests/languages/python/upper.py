"""Upper-cases ASCII letters and leaves every other character as it is."""
import string

import wit_world

UPPER = str.maketrans(string.ascii_lowercase, string.ascii_uppercase)


class WitWorld(wit_world.WitWorld):
    def upper(self, text: str) -> str:
        return text.translate(UPPER)
