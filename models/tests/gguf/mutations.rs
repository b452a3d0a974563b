//! Damage at seeded places: a file is read or refused, and nothing else happens.

use super::build::File;
use llamac_models::gguf::{Gguf, read_all};
use std::path::Path;

/// The bundled file with the largest header in proportion.
fn bundled() -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/models/bard.gguf/bard-q4_0.gguf");
    std::fs::read(path).expect("the bundled file")
}

/// Splitmix64.
struct Seeded(u64);

impl Seeded {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }
}

#[test]
fn truncation() {
    let file = bundled();
    let gguf = Gguf::parse("x.gguf", file.as_slice()).unwrap_or_else(|e| panic!("{e}"));
    let end = gguf.tensors().map(|(_, place)| place.bytes.end).max().expect("tensors");
    let header = gguf.tensors().map(|(_, place)| place.bytes.start).min().expect("tensors");
    let mut seeded = Seeded(1);
    for i in 0..200 {
        // Half of them in the header, which is the smaller part.
        let at = seeded.below(if i % 2 == 0 { end } else { header });
        let error = Gguf::parse("x.gguf", &file[..at]).expect_err("a part of a file").to_string();
        assert!(error.starts_with("x.gguf: "), "{at}: {error}");
    }
}

/// Reads whatever is left of a file after some of its bytes have changed; only the header is given, so that thousands of
/// them can be tried.
#[test]
fn flipped_bytes() {
    let file = bundled();
    let header = {
        let gguf = Gguf::parse("x.gguf", file.as_slice()).unwrap_or_else(|e| panic!("{e}"));
        gguf.tensors().map(|(_, place)| place.bytes.start).min().expect("tensors")
    };
    let small = File::with_vocabulary().bytes();
    let mut seeded = Seeded(2);
    for round in 0..3000 {
        // The large file keeps its length: offsets must still be believed. The small one is all header.
        let (mut bytes, most) = if round % 20 == 0 { (file.clone(), header) } else { (small.clone(), small.len()) };
        for _ in 0..=seeded.below(4) {
            let at = seeded.below(most);
            bytes[at] = match seeded.below(4) {
                0 => 0,
                1 => 0xff,
                2 => bytes[at] ^ (1 << seeded.below(8)),
                _ => seeded.next() as u8,
            };
        }
        read_all(&bytes);
    }
}
