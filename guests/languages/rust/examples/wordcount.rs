//! Counts lines, words and bytes, as wc does.

use std::io::Read;

fn main() -> std::io::Result<()> {
    let (mut lines, mut words, mut bytes, mut in_word) = (0, 0, 0, false);
    for byte in std::io::stdin().lock().bytes() {
        let byte = byte?;
        let space = byte == b' ' || (b'\t'..=b'\r').contains(&byte);
        lines += u64::from(byte == b'\n');
        words += u64::from(!space && !in_word);
        in_word = !space;
        bytes += 1u64;
    }
    println!("{lines} {words} {bytes}");
    Ok(())
}
