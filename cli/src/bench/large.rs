//! The benchmark's guest with some 2 MB of code beside what is called: as large as what compilers of languages make.
//!
//! The same bytes in every run; a number in a section of its own makes them a module of their own.

use std::fmt::Write;

use super::modules::UPPER;

/// How many functions of about a kilobyte each.
const FUNCTIONS: u32 = 1830;
/// How many pieces each of them has.
const PIECES: u32 = 20;

/// The guest, which takes a while to make: once is enough.
pub struct Large(Vec<u8>);

impl Large {
    /// Makes it.
    pub fn new() -> anyhow::Result<Self> {
        const MEMORY: &str = "(memory (export \"memory\") 1)";
        let mut more = String::from("(memory (export \"memory\") 17)\n");
        for number in 0..FUNCTIONS {
            function(&mut more, number)?;
        }
        Ok(Self(wat::parse_str(UPPER.replace(MEMORY, &more))?))
    }

    /// Its bytes with a number in them.
    pub fn numbered(&self, number: u64) -> Vec<u8> {
        const NAME: &[u8] = b"number";
        let number = number.to_le_bytes();
        // Id, length, and the name with its own: all below 128, so that each length is one byte.
        let head = [0, (1 + NAME.len() + number.len()) as u8, NAME.len() as u8];
        [&self.0, &head[..], NAME, &number].concat()
    }
}

/// Branches, arithmetic and accesses to memory, with constants that are nobody else's.
fn function(text: &mut String, number: u32) -> std::fmt::Result {
    writeln!(text, "(func (param i32) (result i32) (local i32)")?;
    for piece in 0..PIECES {
        let seed = (number * PIECES + piece).wrapping_mul(2_654_435_761);
        let (limit, factor, at) = (seed >> 8, seed | 1, seed % 60_000);
        writeln!(
            text,
            "(if (i32.lt_u (local.get 0) (i32.const {limit})) (then (local.set 1 (i32.add (i32.mul (local.get 1) \
             (i32.const {factor})) (i32.load offset={at} (i32.and (local.get 0) (i32.const 4095)))))) (else (i32.store \
             offset={at} (i32.and (local.get 1) (i32.const 4095)) (local.get 0)) (local.set 0 (i32.rotl (local.get 0) \
             (i32.const 5)))))"
        )?;
    }
    writeln!(text, "(local.get 1))")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_about_two_megabytes_the_same_each_time_and_its_own_by_its_number() {
        let large = Large::new().unwrap();
        let [first, second] = [1, 2].map(|number| large.numbered(number));
        assert!(
            (1_900_000..2_100_000).contains(&first.len()),
            "{} bytes",
            first.len()
        );
        assert_eq!(first, Large::new().unwrap().numbered(1));
        assert_ne!(first, second);
        wess_worker::guest::inspect(&first).unwrap();
    }
}
