// Greets a person by name. What greet throws is the `err` of its result.
export const greeter = {
  greet({ name, age }, tone) {
    if (name === "") throw "nobody to greet";
    const word = tone === "warm" ? "Welcome" : "Hello";
    return { text: `${word}, ${name}!`, adult: age == null ? null : age >= 18 };
  },
};
