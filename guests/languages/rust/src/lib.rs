//! Nothing: the guests are its examples, each a module of its own.
