//! Greets a person by name.

wit_bindgen::generate!({ path: "../wit", world: "greet" });

use exports::example::guests::greeter::{Greeting, Guest, Person, Tone};

struct Greeter;

impl Guest for Greeter {
    fn greet(who: Person, tone: Tone) -> Result<Greeting, String> {
        if who.name.is_empty() {
            return Err("nobody to greet".into());
        }
        let word = match tone {
            Tone::Plain => "Hello",
            Tone::Warm => "Welcome",
        };
        Ok(Greeting { text: format!("{word}, {}!", who.name), adult: who.age.map(|age| age >= 18) })
    }
}

export!(Greeter);
