"""Greets a person by name. What greet raises as Err is the `err` of its result."""
from componentize_py_types import Err
from wit_world import exports
from wit_world.exports.greeter import Greeting, Person, Tone


class Greeter(exports.Greeter):
    def greet(self, who: Person, tone: Tone) -> Greeting:
        if not who.name:
            raise Err("nobody to greet")
        word = "Welcome" if tone is Tone.WARM else "Hello"
        return Greeting(f"{word}, {who.name}!", None if who.age is None else who.age >= 18)
